"""Decide whether an exception is the handler's own, or the requested end of its process.

Whatever a handler raises is its failure, of whatever class. An attempt has no outcome only if
something outside the handler requested the end of the process or greenlet that runs it; then the
requester decides about the job, or its death is counted. Each kind of request leaves a mark in the
process. That mark is the proof, never the class of the exception: a handler may raise `SystemExit`
itself, and its own clean-up may replace the one that a signal raised.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from billiard.common import terminate_handler_fired

__all__ = ["ProcessEnd"]


class ProcessEnd:
    """Created before an attempt, and used when the attempt raises.

    `killed` says whether the worker has ended this delivery in its greenlet. `limit_s` is the hard
    time limit, in seconds.
    """

    def __init__(self, killed: Callable[[], bool], limit_s: float | None) -> None:
        self._killed, self._limit_s = killed, limit_s
        # A signal that an earlier attempt has swallowed says nothing about this one.
        self._before = _signals()

    def go_on(self, error: BaseException) -> None:
        """Return if `error` is the handler's own; else raise the error that ends this process."""
        if _signals() != self._before or self._killed() or self._is_overtime(error):
            _end_with(error)

    def _is_overtime(self, error: BaseException) -> bool:
        """Return whether gevent's pool raises its hard limit, about which the main process decides.

        The pool treats any `gevent.Timeout` that leaves the job as its own.
        """
        named = type(error).__module__ == "gevent.timeout" and type(error).__name__ == "Timeout"
        return named and getattr(error, "seconds", None) == self._limit_s


def _end_with(error: BaseException) -> NoReturn:
    if isinstance(error, Exception):
        # Celery would treat it as an outcome.
        raise SystemExit(str(error)) from error
    raise error


def _signals() -> tuple[bool, bool]:
    """Return whether a pool's process got a terminating signal; whether a solo worker must end."""
    worker = sys.modules.get("celery.worker.state")
    must_end = worker is not None and bool(worker.should_terminate)
    # Only the main thread gets signals: threads and greenlets run to their end.
    is_main = threading.current_thread() is threading.main_thread()
    return terminate_handler_fired(), must_end and is_main
