"""What a handler may raise that is no ordinary exception, by name."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Final

import gevent
from celery.exceptions import WorkerShutdown, WorkerTerminate
from greenlet import GreenletExit

__all__ = ["RAISED", "SIGNAL_EXIT", "Panic"]

# What billiard's handler of SIGTERM leaves a process with; a handler may leave with it too.
SIGNAL_EXIT: Final = "SystemExit as of a signal"


class Panic(BaseException):
    """As an extension in another language has it."""


RAISED: Final[dict[str, Callable[[], BaseException]]] = {
    "Panic": lambda: Panic("in an extension"),
    "CancelledError": lambda: asyncio.CancelledError("by its own loop"),
    "GeneratorExit": GeneratorExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": lambda: SystemExit(3),
    SIGNAL_EXIT: lambda: SystemExit(-(256 - signal.SIGTERM)),
    "WorkerShutdown": lambda: WorkerShutdown(0),
    "WorkerTerminate": lambda: WorkerTerminate(1),
    "GreenletExit": GreenletExit,
    "Timeout": lambda: gevent.Timeout(7),
    "MemoryError": lambda: MemoryError("of its own"),
}
