"""Run named commands side by side with prefixed output: worker, mirror, relay, web.

Alone because the manager's file cannot be imported without its extra.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.ops.embedded.embedded_wheels import load

__all__ = ["run_processes"]


def run_processes(
    commands: Mapping[str, Sequence[str]],
    *,
    environment: Mapping[str, str],
    own: Mapping[str, Mapping[str, str]] | None = None,
    drain_s: float,
    fault: Callable[[], str | None] = lambda: None,
    folder: Path | None = None,
    output: TextIO | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> int:
    """Run `commands` (name to words) until one ends or a signal comes; return the exit code.

    Ctrl-C or SIGTERM drains: each command gets SIGTERM (its children do not: a Celery worker
    finishes its jobs with them) and up to `drain_s` seconds, then SIGKILL. A second signal kills at
    once. If a command ends by itself, the log says which and with what code, and all stop. They
    also stop if `fault`, called ten times a second, returns a reason.

    The code is 0 after a signal if all drained, 128 + the signal if some had to be killed, 1 after
    a fault, else that of the command that ended by itself (1 if it was 0). `environment` is added
    to this process's, and `own` has more for single commands, by name. Lines are coloured only at
    a terminal. Call it from the main thread.
    """
    manager_module = load("taskyard.ops.embedded.process_manager")
    printer = load("honcho.printer").Printer(sys.stdout if output is None else output)
    manager = manager_module.ProcessManager(printer, drain_s=drain_s, clock=clock, fault=fault)
    # Python buffers what it writes to a pipe, and a killed command would lose the buffer.
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
    for name, words in commands.items():
        more = {} if own is None else own.get(name, {})
        manager.add_process(name, list(words), env={**variables, **more}, cwd=folder)
    manager.loop()
    return int(manager.returncode)
