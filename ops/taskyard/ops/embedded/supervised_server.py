"""A server process under a supervisor, seen from the process that uses it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from taskyard.ops.embedded import server_supervisor
from taskyard.ops.embedded.postgres_account import Account

__all__ = ["Program", "SupervisedServer"]

SUPERVISOR_OVERHEAD_S = 15.0
"""Extra time for a supervisor after its signals' grace time, to reap the server's orphans."""
LOG_KEPT_BYTES = 10 * 1024 * 1024
LOG_TAIL_BYTES = 4096


@dataclass(frozen=True)
class Program:
    """The command to run.

    `stop_signals` are sent in turn, `grace_s` seconds apart, then SIGKILL.
    """

    argv: Sequence[str]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = Path("/")
    stop_signals: Sequence[signal.Signals] = (signal.SIGTERM,)
    grace_s: float = 30.0
    account: Account | None = None
    keep_open: Sequence[int] = ()


class SupervisedServer:
    """A running `Program`, which ends with this process even if this process is killed."""

    def __init__(self, program: Program) -> None:
        self._program = program
        _limit(program.log)
        with program.log.open("ab") as log:
            self._log_offset = log.tell()
            self._supervisor = subprocess.Popen(  # noqa: S603 - our own interpreter and script
                [
                    sys.executable,
                    "-I",
                    "-S",
                    server_supervisor.__file__,
                    json.dumps(_order(program)),
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=program.keep_open,
                # In its own session, so that the terminal's Ctrl-C reaches only the parent, which
                # decides.
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether the server, or an orphan of it, still runs."""
        return self._supervisor.poll() is None

    def stop(self) -> int:
        """Close the supervisor's input and wait for the end; return the server's exit code."""
        if self._supervisor.stdin is not None:
            self._supervisor.stdin.close()
        longest_s = self._program.grace_s * (len(self._program.stop_signals) + 1)
        return self._supervisor.wait(longest_s + SUPERVISOR_OVERHEAD_S)

    def log_tail(self) -> str:
        """Return the end of what this run wrote to its log."""
        with self._program.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_offset, size - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")


def _order(program: Program) -> server_supervisor.Order:
    account = program.account
    return {
        "argv": list(program.argv),
        "env": dict(program.env),
        "cwd": str(program.cwd),
        "parent_pid": os.getpid(),
        "stop_signals": [int(number) for number in program.stop_signals],
        "grace_s": program.grace_s,
        "uid": None if account is None else account.uid,
        "gid": None if account is None else account.gid,
        "capability": None if account is None else account.capability,
        "keep_open": list(program.keep_open),
    }


def _limit(log: Path) -> None:
    """Keep one older file, so that a log cannot grow without limit."""
    if log.exists() and log.stat().st_size > LOG_KEPT_BYTES:
        log.replace(log.with_suffix(".old.log"))
