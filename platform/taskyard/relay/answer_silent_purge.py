"""Answer the request of a purge that died, or lost Postgres, before it said what it did.

A purge keeps its intent ahead of the relays with each batch, and answers it itself at its end. A
relay gets the intent of a purge that was silent for `RELAY_AFTER`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, func, select

from taskyard.access import Action
from taskyard.audit import Outcome
from taskyard.database.tables import AUDIT, OUTBOX
from taskyard.outbox import Intent
from taskyard.relay.ports import Ports
from taskyard.relay.results import Awaits, Refused, Result, Unaudited

__all__ = ["answer_silent_purges"]

# The requests of its last batch become due together with its own.
_MOST_LOOKS: Final = 8


def answer_silent_purges(
    connection: Connection, _: Ports, intents: Sequence[Intent]
) -> Mapping[uuid.UUID, Result]:
    """Refuse each purge, with the number of jobs that it has cancelled.

    The requests for its jobs are carried out first; those that must wait longer are counted.
    """
    return {each.id: _result(connection, each) for each in intents}


def _result(connection: Connection, intent: Intent) -> Result:
    request = connection.scalar(
        select(AUDIT.c.id).where(
            AUDIT.c.request_id == intent.id,
            AUDIT.c.action_type == Action.PURGE_QUEUE.value,
            AUDIT.c.outcome == Outcome.REQUESTED,
        )
    )
    if request is None:
        return Unaudited()
    jobs = _requests_of(intent.id, request)
    open_ = select(func.count()).where(OUTBOX.c.id.in_(jobs), OUTBOX.c.done_at.is_(None))
    untried = connection.scalar(open_.where(OUTBOX.c.attempts == 0)) or 0
    if untried and intent.attempts < _MOST_LOOKS:
        return Awaits(f"{untried} requests of this purge are carried out first")
    cancelled = select(func.count()).where(
        AUDIT.c.request_id.in_(jobs), AUDIT.c.outcome == Outcome.APPLIED
    )
    done, left = connection.scalar(cancelled) or 0, connection.scalar(open_) or 0
    return Refused(_why(done, left))


def _requests_of(purge: uuid.UUID, after: int) -> Any:
    """Return the query for the requests to cancel the jobs of a purge."""
    return select(AUDIT.c.request_id).where(
        AUDIT.c.id > after,
        AUDIT.c.action_type == Action.CANCEL_REQUEST.value,
        AUDIT.c.outcome == Outcome.REQUESTED,
        AUDIT.c.detail["purge"].astext == str(purge),
    )


def _why(done: int, left: int) -> str:
    more = f", and {left} more requests are open" if left else ""
    return (
        f"the purge ended before it said what it did; {done} jobs were cancelled{more} (see its "
        "jobs' rows); run it again"
    )
