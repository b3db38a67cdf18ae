"""After the storm: until every job has its outcome and Postgres has been told of all of it."""

from __future__ import annotations

import time
from typing import Final

from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from chaos.audit import states_of
from chaos.jobs import EFFECTS
from chaos.load import Plan
from chaos.town import Town
from taskyard.errors import TaskyardError
from taskyard.jobs.states import State
from taskyard.ops.embedded.waiting import until

__all__ = ["await_calm", "await_most"]

# The storm goes on until only the last few are left.
_MOST: Final = 0.9
# A machine that others use as well may have a backlog left; nothing is promised about that.
_CALM_S: Final = 600.0
# A look must not cost what the jobs need.
_LOOKED_AT: Final = 200
_ENDS: Final = (State.COMPLETED, State.DEAD_LETTERED)


def await_most(town: Town, plan: Plan) -> None:
    """Until nine of ten jobs had their effect, or for as long again as they took to come."""
    wanted = plan.jobs * _MOST

    def done() -> bool:
        return int(town.witness.llen(EFFECTS)) >= wanted

    until(done, within_s=plan.load_s, every_s=0.25)


def await_calm(town: Town, job_ids: list[str]) -> float:
    """Until every job has its outcome and Postgres knows; how long it took, at most 10 minutes."""
    left, started_s = sorted(job_ids), time.monotonic()

    def settled() -> bool:
        town.mend()
        try:
            while left:
                looked_at = left[:_LOOKED_AT]
                states = states_of(town, looked_at)
                open_ = [job for job in looked_at if states[job] not in _ENDS]
                left[:_LOOKED_AT] = open_
                if open_:
                    return False
            return _mirrored(town, len(job_ids))
        except (RedisError, SQLAlchemyError, TaskyardError):
            return False

    until(settled, within_s=_CALM_S, every_s=0.5)
    return round(time.monotonic() - started_s, 1)


def _mirrored(town: Town, count: int) -> bool:
    """Whether no event and no letter is on its way any more."""
    records = town.client.records
    if records.client.xlen(records.keys.lifecycle):
        return False
    query = "SELECT count(*) FROM job_ledger WHERE state IN ('completed', 'dead_lettered')"
    missing = (
        "SELECT count(*) FROM job_ledger WHERE state = 'dead_lettered' AND letter_id NOT IN "
        "(SELECT id FROM dead_letter_queue)"
    )
    with town.engine.connect() as connection:
        told = connection.scalar(text(query))
        return told == count and not connection.scalar(text(missing))
