"""Asking a server for no longer than the caller wants to wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["NoAnswer", "ask"]

T = TypeVar("T")


class NoAnswer(Exception):
    """There was no answer in time."""


@dataclass(slots=True)
class _Asked(Generic[T]):
    """One question on its way; `answers` and `errors` hold one between them once it is done."""

    act: Callable[[], T]
    answers: list[T] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def run(self) -> None:
        try:
            self.answers.append(self.act())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asks
            self.errors.append(error)


def ask(act: Callable[[], T], within_s: float | None) -> T:
    """What `act` returns or raises, `NoAnswer` after `within_s`; None waits as long as it takes.

    A client tries a silent server several times, each as long as its socket allows, and none of
    that can be cut short from here: the thread is left to end with the client's own patience.
    """
    if within_s is None:
        return act()
    asked = _Asked(act)
    thread = threading.Thread(target=asked.run, name="taskyard-ask", daemon=True)
    thread.start()
    thread.join(min(within_s, threading.TIMEOUT_MAX))
    for error in asked.errors:
        raise error
    for answer in asked.answers:
        return answer
    raise NoAnswer
