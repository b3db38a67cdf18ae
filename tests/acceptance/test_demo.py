"""`taskyard demo` does what it shows, in under a minute, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.shell import Shell
from support.waiting import eventually
from taskyard.clock import SYSTEM_CLOCK

PROMISED_S = 60.0

runs_here = pytest.mark.skipif(
    "coverage" in sys.modules, reason="the minute is promised without a tracer"
)
pytestmark = [pytest.mark.slow, runs_here]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Its temporary folders, and with them the demo's, lie in this test's own."""
    (tmp_path / "tmp").mkdir()
    return Shell(tmp_path, {"TMPDIR": str(tmp_path / "tmp")})


def left_behind(shell: Shell) -> list[str]:
    return [path.name for path in (shell.folder / "tmp").iterdir()]


def processes_in(folder: Path, words: bytes = b"") -> list[str]:
    """What still runs with `folder` in its environment or words, and `words` among the latter."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
            known = (process / "environ").read_bytes() + line
        except OSError:
            continue
        if str(folder).encode() in known and words in line:
            found.append(process.name)
    return found


def test_it_fails_repairs_and_replays_within_a_minute(shell: Shell) -> None:
    started_s = SYSTEM_CLOCK.monotonic_s()

    ran = shell.run("demo")

    assert ran.code == 0, ran.out + ran.err
    assert SYSTEM_CLOCK.monotonic_s() - started_s < PROMISED_S
    assert "is dead_lettered (element_not_found: " in ran.out
    assert "applied" in ran.out
    assert "the same job passed: 2 of 2 scenarios" in ran.out
    assert left_behind(shell) == []


def test_what_it_shows_is_what_postgres_holds(shell: Shell) -> None:
    document = shell.run("demo", "--json").document

    facts = ("name", "queue", "state", "attempts", "generation")
    assert [tuple(job[fact] for fact in facts) for job in document["jobs"]] == [
        ("plan", "plan", "completed", 1, 0),
        ("run", "exec", "completed", 1, 0),
        ("locate", "locator", "completed", 1, 0),
        ("run again", "exec", "completed", 1, 1),
    ]
    assert document["letter"]["failure_code"] == "element_not_found"
    assert document["letter"]["replay_outcome"] == "success"
    assert [row["outcome"] for row in document["audit"]] == ["requested", "applied"]
    assert document["elapsed_s"] < PROMISED_S


def test_a_platform_that_dies_fails_it_with_a_sentence_and_keeps_the_log(shell: Shell) -> None:
    demo = shell.start("demo", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert demo.stdout is not None
    for line in demo.stdout:
        if "is accepted" in line:
            break
    for pid in processes_in(shell.folder, b"taskyard.ops.cli\0up"):
        os.kill(int(pid), signal.SIGKILL)

    _, err = demo.communicate(timeout=PROMISED_S)

    assert demo.returncode == 1
    assert err.startswith("error: the demonstration stops: ")
    log = Path(err.split()[-1])
    assert log.is_relative_to(shell.folder)
    assert "processes   mirror, relay" in log.read_text()
    eventually(lambda: not processes_in(shell.folder), "no process is left")


def test_ctrl_c_clears_everything_up(shell: Shell) -> None:
    demo = shell.start("demo", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert demo.stdout is not None
    for line in demo.stdout:
        if "is accepted" in line:
            break

    demo.send_signal(signal.SIGINT)
    _, err = demo.communicate(timeout=PROMISED_S)

    assert (demo.returncode, err) == (130, "")
    assert left_behind(shell) == []
    eventually(lambda: not processes_in(shell.folder), "no process is left")
