"""Repeating a step for ever: an outage of a server is logged and waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from taskyard.errors import SchemaMismatch, ServerRefused, ServerUnreachable
from taskyard.wire.logs import logger

__all__ = ["FIRST_WAIT_S", "LONGEST_WAIT_S", "repeat"]

log = logger(__name__)

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 15.0
_OUTAGES: Final = (ServerUnreachable, ServerRefused, SchemaMismatch, SQLAlchemyError)


def repeat(
    name: str,
    step: Callable[[], object],
    stop: threading.Event,
    *,
    also: tuple[type[Exception], ...] = (),
) -> None:
    """Do `step` again and again until `stop` is set; `name` begins the names of its log events.

    A step that fails because a server cannot be reached or refuses (`also` adds other clients'
    errors) is repeated after 0.5 s, then twice as long up to 15 s. Any other error is raised: it is
    a fault of ours, and going on could lose something.
    """
    outages: tuple[type[Exception], ...] = (*_OUTAGES, *also)
    wait_s, failures = FIRST_WAIT_S, 0
    while not stop.is_set():
        try:
            step()
        except outages as error:
            failures += 1
            log.warning(
                "%s waits %.1f s after failure %d in a row: %s",
                name,
                wait_s,
                failures,
                error,
                extra={"action": f"{name}_waiting", "failures": failures, "wait_s": wait_s},
            )
            stop.wait(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            continue
        if failures:
            log.info(
                "%s goes on after %d failures",
                name,
                failures,
                extra={"action": f"{name}_resumed", "failures": failures},
            )
        wait_s, failures = FIRST_WAIT_S, 0
