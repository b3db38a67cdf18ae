"""Wait for a server's answer no longer than the caller wants."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Final, TypeVar

__all__ = ["LAST_ASK_S", "NoAnswer", "call_with_timeout"]

# Even an expired wait allows one answer, or a timeout of 0 could never see a result. And a server
# that refuses is reported as such: all tries of the client together take less.
LAST_ASK_S: Final = 1.0

T = TypeVar("T")


class NoAnswer(Exception):
    """Raised when a server did not answer in time."""


def call_with_timeout(wait_s: float | None, act: Callable[[], T]) -> T:
    """Return or raise what `act` does; raise `NoAnswer` after `wait_s` (None: no limit).

    The client library asks a silent server several times, each time for as long as its socket
    allows, and cannot be interrupted. So the thread that asks ends later, by the library's own
    limits.
    """
    if wait_s is None:
        return act()
    answer: Future[T] = Future()
    threading.Thread(target=_answer, args=(answer, act), name="taskyard-ask", daemon=True).start()
    if not wait([answer], min(wait_s, threading.TIMEOUT_MAX)).done:
        raise NoAnswer
    return answer.result()


def _answer(answer: Future[T], act: Callable[[], T]) -> None:
    try:
        answer.set_result(act())
    except BaseException as error:  # noqa: BLE001 - raised again in the thread that asks
        answer.set_exception(error)
