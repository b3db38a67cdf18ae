"""After the storm: until every job has its outcome and Postgres has all of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from chaos.audit import ENDS, states_of
from chaos.cluster import Cluster
from chaos.effects import EFFECTS
from chaos.histories import open_intents
from chaos.load import Plan
from chaos.stranded import GOES_ON_S, HELD, find_gone, find_stopped
from taskyard.errors import TaskyardError
from taskyard.ops.embedded.waiting import until

__all__ = ["Settled", "await_most", "await_settled"]

# The storm goes on until only the last few are left.
_MOST: Final = 0.9
# A machine that others use as well may have a backlog left; nothing is promised about that.
_SETTLE_S: Final = 600.0
# A look must not cost what the jobs need.
_LOOKED_AT: Final = 200
_GONE_EVERY_S: Final = 5.0


@dataclass(slots=True)
class Settled:
    """How the cluster settled; `lost_in_pop` are jobs whose message kombu's pop has lost.

    `stopped` are the open jobs, each with the reason, that nothing went on with 45 s after the
    storm; `held_back` those of them whose message a dead worker holds, so that they are not lost.
    """

    seconds: float = 0.0
    lost_in_pop: list[str] = field(default_factory=list)
    stopped: dict[str, str] = field(default_factory=dict)

    @property
    def held_back(self) -> list[str]:
        """Those that come back after the visibility timeout."""
        return [job for job, why in self.stopped.items() if HELD in why]


def await_most(cluster: Cluster, plan: Plan) -> None:
    """Until nine of ten jobs had their effect, or for as long again as they took to come."""
    wanted = plan.jobs * _MOST

    def done() -> bool:
        return int(cluster.effects_log.llen(EFFECTS)) >= wanted

    until(done, within_s=plan.load_s, every_s=0.25)


def await_settled(cluster: Cluster, job_ids: list[str]) -> Settled:
    """Until every job has its outcome and Postgres has all of it, at most 10 minutes."""
    waiting = _Waiting(cluster, job_ids)
    until(waiting.over, within_s=_SETTLE_S, every_s=0.5)
    waiting.settled.seconds = round(waiting.waited_s, 1)
    return waiting.settled


class _Waiting:
    def __init__(self, cluster: Cluster, job_ids: list[str]) -> None:
        self._cluster, self._jobs, self._left = cluster, len(job_ids), sorted(job_ids)
        self._started_s = self._looked_s = time.monotonic()
        self._looked_for_stopped = False
        self.settled = Settled()

    @property
    def waited_s(self) -> float:
        return time.monotonic() - self._started_s

    def over(self) -> bool:
        """Whether all has settled; a server that does not answer yet is asked again."""
        self._cluster.mend()
        try:
            return self._over()
        except (RedisError, SQLAlchemyError, TaskyardError):
            return False

    def _over(self) -> bool:
        if self.waited_s > GOES_ON_S and not self._looked_for_stopped:
            self._looked_for_stopped = True
            self.settled.stopped = find_stopped(self._cluster, self._left)
            if self._nothing_moves():
                # Nothing would come of waiting: what is left stands still.
                self._left = []
                return True
        if open_intents(self._cluster):
            # A replay would open a job again that has ended.
            return False
        while self._left:
            looked_at = self._left[:_LOOKED_AT]
            states = states_of(self._cluster, looked_at)
            open_ = [job for job in looked_at if states[job] not in ENDS]
            self._left[:_LOOKED_AT] = open_
            if open_:
                self._give_up_gone()
                return False
        return _mirrored(self._cluster, self._jobs - len(self.settled.lost_in_pop))

    def _nothing_moves(self) -> bool:
        """Whether all that is left stands still; what kombu holds back comes back by itself."""
        if not self.settled.stopped or self._cluster.setup.loses_pops:
            return False
        states = states_of(self._cluster, self._left)
        open_ = [job for job, state in states.items() if state not in ENDS]
        return len(self.settled.stopped) == len(open_)

    def _give_up_gone(self) -> None:
        """What kombu's pop has lost has no outcome, however long one waits."""
        if not self._cluster.setup.loses_pops:
            return
        if time.monotonic() - self._looked_s < _GONE_EVERY_S:
            return
        self._looked_s = time.monotonic()
        gone = find_gone(self._cluster, self._left)
        self.settled.lost_in_pop += gone
        self._left = sorted(set(self._left) - set(gone))


def _mirrored(cluster: Cluster, count: int) -> bool:
    """Whether no event and no letter is on its way any more."""
    records = cluster.records
    if records.client.xlen(records.keys.lifecycle):
        return False
    query = "SELECT count(*) FROM job_ledger WHERE state = ANY(:ends)"
    missing = (
        "SELECT count(*) FROM job_ledger WHERE state = 'dead_lettered' AND letter_id NOT IN "
        "(SELECT id FROM dead_letter_queue)"
    )
    with cluster.engine.connect() as connection:
        known = connection.scalar(text(query), {"ends": [state.value for state in ENDS]})
        return known >= count and not connection.scalar(text(missing))
