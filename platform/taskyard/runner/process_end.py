"""Whose an exception is: the handler's own, or the end of a process that was asked to end.

Whatever a handler raises is its failure, of whatever class. An attempt has no outcome only if
something outside the handler asked for the end of what runs it; whoever asked decides about the
job, or its death is counted. Each way of asking leaves a trace in the process. That trace is the
proof, never the class of the exception: a handler may raise `SystemExit` itself, and its own
clean-up may replace the one that a signal raised.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from billiard.common import terminate_handler_fired

__all__ = ["ProcessEnd"]


class ProcessEnd:
    """Made before an attempt, asked when it raises.

    `killed` says whether the worker has ended this delivery where it runs beside others, in a
    greenlet. `limit_s` is the hard time limit, in seconds.
    """

    def __init__(self, killed: Callable[[], bool], limit_s: float | None) -> None:
        self._killed, self._limit_s = killed, limit_s
        # A signal that an earlier attempt has swallowed says nothing about this one.
        self._before = _signals()

    def go_on(self, error: BaseException) -> None:
        """Return if `error` is the handler's own; else raise what ends this process."""
        if _signals() != self._before or self._killed() or self._is_overtime(error):
            _end_with(error)

    def _is_overtime(self, error: BaseException) -> bool:
        """Whether gevent's pool raises its hard limit, which the main process decides about.

        The pool takes any `gevent.Timeout` that leaves the job for its own.
        """
        named = type(error).__module__ == "gevent.timeout" and type(error).__name__ == "Timeout"
        return named and getattr(error, "seconds", None) == self._limit_s


def _end_with(error: BaseException) -> NoReturn:
    if isinstance(error, Exception):
        # Celery would take it for an outcome.
        raise SystemExit(str(error)) from error
    raise error


def _signals() -> tuple[bool, bool]:
    """Whether a pool's process got a terminating signal; whether a solo worker must end at once."""
    worker = sys.modules.get("celery.worker.state")
    must_end = worker is not None and bool(worker.should_terminate)
    # Signals reach the main thread alone: threads and greenlets run to their end.
    is_main = threading.current_thread() is threading.main_thread()
    return terminate_handler_fired(), must_end and is_main
