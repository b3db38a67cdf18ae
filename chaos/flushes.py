"""What a storm must leave where Redis was flushed, at a broker that keeps the messages.

Records, leases and unread events are gone then, so neither the records nor the ledger can say how a
job ended. Its effects can: each job has them, and the one with an inbox once.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import text

from chaos.audit import REPEATED, Audit
from chaos.cluster import Cluster
from chaos.effects import EFFECTS
from chaos.settle import Settled
from taskyard.ops.embedded.waiting import until

__all__ = ["audit_effects", "await_effects"]

_SETTLE_S: Final = 300.0


def await_effects(cluster: Cluster, jobs: int) -> Settled:
    """Until so many jobs had their effect, at most 5 minutes."""
    started_s = time.monotonic()

    def done() -> bool:
        cluster.mend()
        return len(_effects(cluster)) >= jobs

    until(done, within_s=_SETTLE_S, every_s=0.5)
    return Settled(round(time.monotonic() - started_s, 1))


def audit_effects(cluster: Cluster, kinds: Mapping[str, str]) -> Audit:
    """Compare what was enqueued with the effects; every job is of a kind that has some."""
    seen, plain = Audit(len(kinds)), _effects(cluster)
    with cluster.engine.connect() as connection:
        rows = connection.execute(text("SELECT job_id, count(*) FROM chaos_effects GROUP BY 1"))
        once = {row[0]: int(row[1]) for row in rows}
    lost = [job for job in kinds if job not in plain or job not in once]
    seen.lost = seen.name("no effect", lost)
    twice = [job for job, count in once.items() if count > 1]
    seen.doubled = seen.name("inbox effect applied twice", twice)
    again = [job for job, count in plain.items() if count > 1]
    seen.doubled_without_inbox = seen.name(REPEATED, again)
    return seen


def _effects(cluster: Cluster) -> Counter[str]:
    entries: Any = cluster.effects_log.lrange(EFFECTS, 0, -1)
    return Counter(json.loads(raw)["job"] for raw in entries)
