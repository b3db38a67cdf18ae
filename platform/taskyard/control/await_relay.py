"""Wait for the relay's answer to a verb."""

from __future__ import annotations

import uuid
from typing import Final

from sqlalchemy import Connection, Engine

from taskyard import audit, outbox
from taskyard.audit import Outcome
from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.errors import NotFound

__all__ = ["PENDING", "wait_outcome"]

PENDING: Final = "pending"
_POLL_S: Final = 0.05


def wait_outcome(
    engine: Engine, request_id: uuid.UUID, timeout_s: float = 2.0, clock: Clock = SYSTEM_CLOCK
) -> str:
    """Return `applied`, `refused: <why>`, or `pending` if there is no answer after `timeout_s`.

    Pending is not a failure: the intent is stored and will be carried out. The outcome is `pending:
    <why>` after a try of the relay that failed and will be repeated. Raises `NotFound`.
    """
    deadline_s = clock.monotonic_s() + timeout_s
    while True:
        with engine.connect() as connection:
            outcome = _outcome(connection, request_id)
            why = outbox.why_waiting(connection, request_id) if outcome == PENDING else None
        if outcome != PENDING or clock.monotonic_s() >= deadline_s:
            return outcome if why is None else f"{PENDING}: {why}"
        clock.wait_s(_POLL_S)


def _outcome(connection: Connection, request_id: uuid.UUID) -> str:
    rows = audit.rows_of(connection, request_id)
    if not rows:
        raise NotFound(
            f"no operator action has the request id {request_id}. See: taskyard audit list"
        )
    last = str(rows[-1]["outcome"])
    return PENDING if last == Outcome.REQUESTED else last
