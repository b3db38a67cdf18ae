"""The jobs of a queue that wait, as the ledger knows them, in pages.

Alone because RabbitMQ's delay exchanges cannot be searched: only the ledger names what waits there.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, select

from taskyard.database.tables import LEDGER
from taskyard.jobs.states import State

__all__ = ["waiting_in"]

_WAITING: Final = (State.ACCEPTED.value, State.RETRYING.value)


def waiting_in(
    connection: Connection, queue: str, *, until: datetime, after: str, limit: int
) -> list[str]:
    """Return up to `limit` ids of jobs that wait, in order, from the first one over `after`.

    They last changed before `until`. The ledger is a little late: compare with the records.
    """
    query = (
        select(LEDGER.c.job_id)
        .where(LEDGER.c.queue == queue, LEDGER.c.state.in_(_WAITING))
        .where(LEDGER.c.updated_at < until, LEDGER.c.job_id > after)
        .distinct()
        .order_by(LEDGER.c.job_id)
        .limit(limit)
    )
    return list(connection.scalars(query))
