"""What is enqueued under a storm: at a steady rate, of four kinds, by a client that insists."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from amqp.exceptions import AMQPError
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from chaos.cluster import Cluster
from chaos.storms import STORMS
from taskyard.errors import TaskyardError

__all__ = ["DOOMED", "POISON", "Plan", "enqueue"]

DOOMED, POISON = "doomed", "poison"
# Each kills three processes: more of them would be a storm of their own.
_POISON_EVERY: Final = 500
_BATCH_S: Final = 0.1
_AGAIN_S: Final = 0.25
# A storm may stop the client for as long as it takes to send everything, and for this long.
_PATIENCE_S: Final = 300.0
# What a client raises while its servers are down.
_REFUSED: Final = (TaskyardError, RedisError, KombuError, AMQPError, OSError)
# Below this a storm's waits are as they stand; a run that is longer stretches them.
_SHORT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do; the same seed draws the same faults and kinds of jobs. `rate` is a second's."""

    storm: str
    setup: str
    jobs: int
    seed: int
    rate: float

    @property
    def load_s(self) -> float:
        """How long jobs come in."""
        return self.jobs / self.rate

    @property
    def stretch(self) -> float:
        """By how much the waits between faults grow, so that a long storm lets work be done."""
        return max(1.0, self.load_s / _SHORT_S)

    def kinds(self) -> list[str]:
        """The kind of each job: one in 500 (at least two) is poison, spread evenly."""
        rng = random.Random(self.seed)  # noqa: S311 - repeatable
        drawn = [rng.choice(STORMS[self.storm].kinds) for _ in range(self.jobs)]
        if not STORMS[self.storm].poison:
            return drawn
        every = min(_POISON_EVERY, max(2, self.jobs // 2))
        drawn[every // 2 :: every] = [POISON] * len(drawn[every // 2 :: every])
        return drawn


def enqueue(
    plan: Plan, cluster: Cluster, storm: Future[None], job_ids: list[str]
) -> dict[str, str]:
    """Enqueue at the plan's rate; the kind of each job by its id. `job_ids` gets them as they come.

    Raises what ended `storm`: what it broke then would stay broken.
    """
    kinds: dict[str, str] = {}
    started_s = time.monotonic()
    for batch in _batches(plan):
        ids = _insist(cluster, batch, storm, started_s + 2 * plan.load_s + _PATIENCE_S)
        kinds.update(zip(ids, batch.values(), strict=True))
        job_ids += ids
        ahead_s = len(kinds) / plan.rate - (time.monotonic() - started_s)
        if ahead_s > 0:
            time.sleep(ahead_s)
    return kinds


def _batches(plan: Plan) -> Iterator[dict[int, str]]:
    kinds, size = plan.kinds(), max(1, round(plan.rate * _BATCH_S))
    for start in range(0, plan.jobs, size):
        yield dict(enumerate(kinds[start : start + size], start))


def _insist(
    cluster: Cluster, batch: dict[int, str], storm: Future[None], until_s: float
) -> list[str]:
    """As a service does it: under ids of its own, again until all of them are confirmed."""
    while True:
        try:
            return cluster.fleet.send(batch)
        except _REFUSED as error:
            if storm.done():
                storm.result()
            if time.monotonic() > until_s:
                raise RuntimeError(
                    f"the jobs {min(batch)} to {max(batch)} were still not accepted: {error}. "
                    "Look at what the servers said in the storm's folder"
                ) from error
            time.sleep(_AGAIN_S)
