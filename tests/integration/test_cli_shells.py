"""Whatever a shell does to the command line: one line of error, an exit code, no stack trace."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.shell import PROGRAM, Shell

NOT_UTF8 = b"\xff\xfe"
REDIS = "redis://127.0.0.1:1/0"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """One whose servers are away."""
    database = "postgresql://127.0.0.1:1/nothing"
    variables = {"TASKYARD_REDIS_URL": REDIS, "TASKYARD_BROKER_URL": REDIS}
    return Shell(tmp_path, {**variables, "TASKYARD_DATABASE_URL": database})


def run(shell: Shell, redirection: str, *words: str | bytes) -> tuple[int, str]:
    """Exit code and standard error of a command behind a shell's redirection."""
    done = subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "bash", *PROGRAM, *words],
        env=shell.environ(),
        cwd=shell.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=90,
        check=False,
    )
    text = (done.stdout + done.stderr).decode()
    assert "Traceback" not in text, text
    assert "Exception ignored" not in text, text
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize(
    "words",
    [
        (NOT_UTF8,),
        ("jobs", "show", b"abcdef" + NOT_UTF8),
        ("dlq", "list", "--type", NOT_UTF8),
        ("jobs", "enqueue", "plan_generation", "{}", "--key", NOT_UTF8),
    ],
)
def test_bytes_that_are_no_text_are_told(shell: Shell, words: tuple[str | bytes, ...]) -> None:
    code, text = run(shell, "", *words)

    assert code == 2
    assert text == (
        f"error: Invalid value: expected text in UTF-8, got "
        f"{os.fsdecode(next(word for word in words if isinstance(word, bytes)))!r}. "
        "See: taskyard --help\n"
    )


def test_bytes_that_are_no_text_are_told_on_standard_input_too(shell: Shell) -> None:
    code, text = run(shell, r"< <(printf '\xff\xfe\n')", "jobs", "show", "-")

    assert code == 2
    assert "expected text in UTF-8" in text


@pytest.mark.parametrize(
    ("redirection", "code"),
    [("> /dev/full", 1), (">&-", 0), ("2>&-", 0), ("<&-", 0), ("| true; exit ${PIPESTATUS[0]}", 0)],
)
@pytest.mark.parametrize("words", [("env",), ("env", "--json"), ("--version",)])
def test_streams_may_be_closed_full_or_without_a_reader(
    shell: Shell, words: tuple[str, ...], redirection: str, code: int
) -> None:
    found, text = run(shell, redirection, *words)

    assert found in ({0, 141} if "PIPESTATUS" in redirection else {code})
    if code == 1:
        assert text.endswith(
            "error: the output cannot be written: No space left on device. "
            "Make room, then run it again\n"
        )


@pytest.mark.parametrize("words", [("--help",), ("dlq",)])
def test_help_without_a_reader_ends_as_a_broken_pipe(shell: Shell, words: tuple[str, ...]) -> None:
    code, text = run(shell, "| (exec 0<&-; sleep 2); exit ${PIPESTATUS[0]}", *words)

    assert (code, text) == (141, "")


def test_ids_from_a_closed_standard_input_are_none(shell: Shell) -> None:
    code, text = run(shell, "<&-", "jobs", "show", "-")

    assert code == 2
    assert "no id was given" in text


def test_the_version_needs_no_command(shell: Shell) -> None:
    assert shell.run("--version").out[0].isdigit()


@pytest.mark.parametrize(
    ("variable", "url", "said"),
    [
        ("DATABASE_URL", "postgresql://u:hunter2@127.0.0.1:x/y", "postgresql://host:5432/name"),
        ("BROKER_URL", "amqp://127.0.0.1:x", "redis://host:6379/0 or amqp://host:5672//"),
        ("REDIS_URL", "redis://127.0.0.1:99999/0", "redis://host:6379/0"),
        ("REDIS_URL", os.fsdecode(b"redis://\xff"), "redis://host:6379/0"),
    ],
)
def test_a_url_that_cannot_be_read_is_named(
    shell: Shell, variable: str, url: str, said: str
) -> None:
    ran = shell.run("queues", "list", **{f"TASKYARD_{variable}": url})

    assert ran.code == 2
    assert f"error: TASKYARD_{variable} cannot be read: " in ran.err
    assert f"Expected a URL such as {said}. See: taskyard check\n" in ran.err
    assert "hunter2" not in ran.err


@pytest.mark.parametrize(
    ("variable", "url"),
    [("DATABASE_URL", "mysql://x"), ("REDIS_URL", "http://x"), ("REDIS_URL", "sentinel://x")],
)
def test_no_example_of_a_url_is_masked(shell: Shell, variable: str, url: str) -> None:
    words = ("dlq", "list") if variable == "DATABASE_URL" else ("jobs", "show", "abcdef1")

    ran = shell.run(*words, **{f"TASKYARD_{variable}": url})

    assert ran.code == 2
    assert "user:password@ before the" in ran.err
    assert "[redacted]" not in ran.err


def test_a_time_before_the_calendar_is_since_ever(shell: Shell) -> None:
    assert shell.run("dlq", "list", "--since", "999999w").code == 3  # Postgres is away
