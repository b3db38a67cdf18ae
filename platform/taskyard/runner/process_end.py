"""Distinguish a handler's exception from a requested end of the handler's process.

Every exception of a handler is a failure of the job, whatever its class. An attempt has no outcome
only if something outside the handler ends its process or greenlet. Then the one that requested the
end decides about the job, or the death of the process is counted.

Each kind of request leaves a mark in the process. Only this mark proves a request, never the class
of the exception: a handler may raise `SystemExit` itself, and the handler's clean-up may replace
the exception that a signal raised.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from billiard.common import terminate_handler_fired

__all__ = ["ProcessEnd"]


class ProcessEnd:
    """Distinguishes, for one attempt, a handler's failure from the end of its process.

    Create it before the attempt, and use it when the attempt raises. `killed` returns whether
    the worker has ended this delivery in its greenlet. `limit_s` is the hard time limit, in
    seconds.
    """

    def __init__(self, killed: Callable[[], bool], limit_s: float | None) -> None:
        self._killed, self._limit_s = killed, limit_s
        # A signal that an earlier attempt has swallowed says nothing about this one.
        self._before = _signals()

    def go_on(self, error: BaseException) -> None:
        """Return if the handler itself raised `error`; otherwise end this process by an error."""
        if _signals() != self._before or self._killed() or self._is_overtime(error):
            _end_with(error)

    def _is_overtime(self, error: BaseException) -> bool:
        """Return whether gevent's pool ended the handler at its hard time limit.

        The pool takes any `gevent.Timeout` that leaves the job for its own.
        """
        named = type(error).__module__ == "gevent.timeout" and type(error).__name__ == "Timeout"
        return named and getattr(error, "seconds", None) == self._limit_s


def _end_with(error: BaseException) -> NoReturn:
    if isinstance(error, Exception):
        # Celery would treat it as an outcome.
        raise SystemExit(str(error)) from error
    raise error


def _signals() -> tuple[bool, bool]:
    """Return whether a signal requested the end of this pool process or of this solo worker."""
    worker = sys.modules.get("celery.worker.state")
    must_end = worker is not None and bool(worker.should_terminate)
    # Only the main thread gets signals: threads and greenlets run to their end.
    is_main = threading.current_thread() is threading.main_thread()
    return terminate_handler_fired(), must_end and is_main
