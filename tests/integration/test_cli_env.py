"""`taskyard env`, `taskyard --help` and what holds for every command."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module

import pytest

from support.shell import PROGRAM, Shell
from taskyard.ops.cli.commands import COMMANDS
from taskyard.ops.cli.lazy_commands import Command, Noun
from taskyard.ops.embedded import EmbeddedStack

LIGHT = """
import sys
from taskyard.ops.cli.root_command import run
code = run(["--help"])
heavy = {"celery", "kombu", "redis", "sqlalchemy"} & set(sys.modules)
sys.exit(f"imported: {heavy}" if heavy else code)
"""


def every_command() -> list[Command]:
    found: list[Command] = []
    for entry in COMMANDS.values():
        found += entry.verbs.values() if isinstance(entry, Noun) else [entry]
    return found


def test_every_setting_is_shown_with_its_value_and_origin(bare_shell: Shell) -> None:
    (bare_shell.folder / "taskyard.toml").write_text("lease_s = 45\n")

    shown = bare_shell.run("env", "--json", TASKYARD_NAMESPACE="cell2").document

    assert shown["namespace"] == {"value": "cell2", "origin": "TASKYARD_NAMESPACE"}
    assert shown["lease_s"] == {"value": 45.0, "origin": str(bare_shell.folder / "taskyard.toml")}
    assert shown["death_limit"] == {"value": 3, "origin": "default"}


def test_passwords_are_masked_unless_asked_for(bare_shell: Shell) -> None:
    url = "redis://:hunter2@127.0.0.1:6379/0"

    masked = bare_shell.run("env", TASKYARD_REDIS_URL=url)
    shown = bare_shell.run("env", "--show-secrets", TASKYARD_REDIS_URL=url)

    assert "hunter2" not in masked.out
    assert "redis://:[redacted]@127.0.0.1:6379/0" in masked.out
    assert url in shown.out


def test_the_export_names_the_file_that_the_settings_came_from(bare_shell: Shell) -> None:
    home = bare_shell.folder / ".taskyard"
    (bare_shell.folder / "cell.toml").write_text(f'home = "{home}"\n')
    with EmbeddedStack(home):
        plain = bare_shell.run("env", "--export", "--json").document
        named = bare_shell.run("env", "--export", TASKYARD_CONFIG="cell.toml").out

    assert "TASKYARD_CONFIG" not in plain
    assert f"export TASKYARD_CONFIG={bare_shell.folder / 'cell.toml'}\n" in named


def test_the_help_of_all_commands_loads_no_server_s_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("entry", every_command(), ids=lambda entry: entry.module)
def test_the_list_of_commands_says_what_each_says_itself(entry: Command) -> None:
    command = import_module(entry.module).command

    assert (inspect.getdoc(command) or "").splitlines()[0] == entry.help


@pytest.mark.parametrize("entry", every_command(), ids=lambda entry: entry.module)
def test_every_command_that_answers_answers_in_json(entry: Command) -> None:
    runs_on = {"up", "worker", "mirror", "relay"}
    words = entry.module.split(".")
    parameters = inspect.signature(import_module(entry.module).command).parameters

    assert ("json" in parameters) is not bool(runs_on & set(words))


def test_without_words_the_help_is_shown(bare_shell: Shell) -> None:
    ran = bare_shell.run()

    assert "Run, watch and repair a task platform" in ran.out + ran.err
    assert "error:" not in ran.err


def test_a_missing_extra_is_named_with_the_command_that_installs_it(bare_shell: Shell) -> None:
    (bare_shell.folder / "typer.py").write_text("raise ModuleNotFoundError('no', name='typer')\n")
    code = "from taskyard.ops.cli.main import main; main()"

    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, '.'); {code}"],
        cwd=bare_shell.folder,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr == (
        "error: typer is not installed; the command line needs it. "
        "Run: pip install 'taskyard[ops]'\n"
    )


@pytest.mark.parametrize("words", [("env", "--json"), ("env",)], ids=" ".join)
def test_a_reader_who_leaves_early_is_no_error(bare_shell: Shell, words: tuple[str, ...]) -> None:
    command = subprocess.Popen(
        [*PROGRAM, *words],
        env=bare_shell.environ(),
        cwd=bare_shell.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None
    command.stdout.close()
    command.stdout = None

    _, said = command.communicate(timeout=60)

    assert said == ""
    assert command.returncode == 141


def test_without_a_terminal_there_are_no_colours(bare_shell: Shell) -> None:
    ran = bare_shell.run("check", TERM="xterm-256color")

    assert "\x1b" not in ran.out + ran.err
