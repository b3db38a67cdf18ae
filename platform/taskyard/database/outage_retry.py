"""Repeat a step until a stop is requested; while a server is unreachable, log this and wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from taskyard.errors import SchemaMismatch, ServerRefused, ServerUnreachable
from taskyard.wire.failure_backoff import FailureBackoff

__all__ = ["FIRST_WAIT_S", "LONGEST_WAIT_S", "repeat"]

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 15.0
_OUTAGES: Final = (ServerUnreachable, ServerRefused, SchemaMismatch, SQLAlchemyError)


def repeat(
    name: str,
    step: Callable[[], object],
    stop: threading.Event,
    *,
    also: tuple[type[Exception], ...] = (),
    longest_s: float = LONGEST_WAIT_S,
) -> None:
    """Repeat `step` until `stop` is set; the names of its log events begin with `name`.

    A step that fails because a server cannot be reached or refuses (`also` adds other clients'
    errors) is repeated after 0.5 s, then after twice as long, up to `longest_s`; each wait is
    shortened at random by up to half. The log has one line when a cause appears and one line when
    it ends. Any other error is raised: it is a defect of Taskyard, and continuing could lose data.
    """
    outages: tuple[type[Exception], ...] = (*_OUTAGES, *also)
    backoff = FailureBackoff(first_s=FIRST_WAIT_S, longest_s=longest_s)
    what = f"{name} cannot continue"
    while not stop.is_set():
        try:
            step()
        except outages as error:
            stop.wait(backoff.failed(what, error, action=f"{name}_waiting"))
        else:
            backoff.succeeded(what)
