"""A storm fails when a process ends by itself, whatever its exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos.supervisor import Daemon, Supervisor

from support.waiting import eventually

SLEEPER = "import signal; print('ready', flush=True); signal.pause()"


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    made = Supervisor()
    yield made
    made.stop()


def program(folder: Path, code: str) -> Daemon:
    return Daemon("mirror", [sys.executable, "-c", code], dict(os.environ), folder)


def await_end(daemon: Daemon) -> None:
    eventually(lambda: not daemon.running, "its end")


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_process_that_exits_is_named_with_its_code_and_its_last_log_lines(
    supervisor: Supervisor, tmp_path: Path, code: int
) -> None:
    daemon = program(tmp_path, f"import sys; print('cannot go on'); sys.exit({code})")
    supervisor.start(daemon)
    await_end(daemon)
    supervisor.ensure()
    (note,) = supervisor.ended
    assert note.startswith(f"mirror ended by itself with exit code {code}; its log ends:\n")
    assert note.endswith("cannot go on")


def test_a_process_that_a_signal_from_elsewhere_ended_is_named_and_runs_again(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    daemon = program(tmp_path, SLEEPER)
    supervisor.start(daemon)
    os.kill(daemon.pid, signal.SIGKILL)
    await_end(daemon)
    supervisor.ensure()
    assert "mirror ended by itself with exit code -9" in supervisor.ended[0]
    assert daemon.running


def test_a_process_that_the_storm_killed_is_started_again_and_not_named(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    daemon = program(tmp_path, SLEEPER)
    supervisor.start(daemon)
    first = daemon.pid
    supervisor.kill([daemon])
    supervisor.ensure()
    assert daemon.running
    assert daemon.pid != first
    assert supervisor.ended == []


@pytest.mark.parametrize("noticed_by", ["kill", "stop"])
def test_a_process_that_had_ended_before_it_was_to_be_killed_is_named(
    tmp_path: Path, noticed_by: str
) -> None:
    supervisor, daemon = Supervisor(), program(tmp_path, "print('gone')")
    supervisor.start(daemon)
    await_end(daemon)
    supervisor.kill([daemon]) if noticed_by == "kill" else supervisor.stop()
    assert len(supervisor.ended) == 1


def test_a_second_life_that_ends_by_itself_after_a_kill_is_named(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    flag = tmp_path / "second"
    daemon = program(
        tmp_path,
        f"import pathlib, signal; flag = pathlib.Path({str(flag)!r})\n"
        "if flag.exists(): raise SystemExit(7)\n"
        "flag.touch(); signal.pause()",
    )
    supervisor.start(daemon)
    eventually(flag.exists, "its first life")
    supervisor.kill([daemon])
    supervisor.ensure()
    await_end(daemon)
    supervisor.ensure()
    (note,) = supervisor.ended
    assert "exit code 7" in note


def test_a_process_that_ends_after_sigterm_is_started_again_and_not_named(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    daemon = program(tmp_path, SLEEPER)
    supervisor.start(daemon)
    eventually(lambda: "ready" in daemon.log, "the program")
    supervisor.terminate(daemon)
    assert daemon.exit_code == -signal.SIGTERM
    supervisor.ensure()
    assert supervisor.ended == []
    assert daemon.running


def test_only_what_a_process_says_after_its_last_start_makes_it_ready(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    daemon = program(tmp_path, SLEEPER.replace("ready", "it is ready"))
    supervisor.start(daemon)
    supervisor.await_ready()
    supervisor.kill([daemon])
    supervisor.ensure()
    supervisor.await_ready()
    assert daemon.log.count("it is ready") == 2
