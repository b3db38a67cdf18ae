"""One storm over one broker: load, faults, calm, audit."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from chaos.audit import Audit, audit, states_of
from chaos.jobs import EFFECTS
from chaos.storms import STORMS, Faults, SmallDisk
from chaos.town import Town
from taskyard.errors import TaskyardError
from taskyard.jobs.states import State
from taskyard.ops.embedded.waiting import until

__all__ = ["Plan", "Result", "blow"]

_KINDS: Final = ("plain",) * 18 + ("flaky", "doomed")
_CALM_S: Final = 180.0
_TRIES: Final = 400


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do; the same seed draws the same faults and kinds of jobs."""

    storm: str
    broker: str
    jobs: int
    seed: int
    rate: float = 150.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a storm left behind; `skipped` says why there was none.

    `recovery_s`: longest time from the end of a fault to the next effect. `calm_s`: from the last
    fault until every job had its outcome and Postgres knew of it.
    """

    storm: str
    broker: str
    seed: int
    faults: int = 0
    recovery_s: float | None = None
    calm_s: float | None = None
    audit: Audit | None = None
    skipped: str = ""
    told: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """One entry of chaos.json."""
        whole = asdict(self)
        counted = whole.pop("audit") or {}
        return {**whole, **counted}


def blow(plan: Plan, folder: Path) -> Result:
    """Run one storm in `folder`."""
    storm = STORMS[plan.storm]
    disk = SmallDisk(folder / "small") if storm.small_disk else None
    if disk is not None and not disk.mount():
        why = f"no small file system can be mounted here: {disk.reason}"
        return Result(plan.storm, plan.broker, plan.seed, skipped=why)
    try:
        small = None if disk is None else disk.folder / "redis"
        with Town(
            folder,
            plan.broker,
            proxied=storm.proxied,
            shifts_s=storm.shifts_s,
            redis_folder=small,
        ) as town:
            return _blow(plan, town)
    finally:
        if disk is not None:
            disk.unmount()


def _blow(plan: Plan, town: Town) -> Result:
    rng = random.Random(f"{plan.storm} {plan.seed}")  # noqa: S311 - repeatable is what it must be
    faults = Faults(town, rng, threading.Event())
    with ThreadPoolExecutor(1) as weather:
        raging = weather.submit(_rage, plan, faults)
        try:
            kinds = _enqueue(plan, town)
        finally:
            faults.stop.set()
        raging.result()
    last_s = time.time()
    town.mend()
    _await_calm(town, list(kinds))
    calm_s = time.time() - last_s
    return Result(
        plan.storm,
        plan.broker,
        plan.seed,
        faults=len(faults.ended_at),
        recovery_s=_recovery_s(town, faults),
        calm_s=round(calm_s, 1),
        audit=audit(town, kinds),
        told=faults.told,
    )


def _rage(plan: Plan, faults: Faults) -> None:
    storm = STORMS[plan.storm]
    while faults.pause(*storm.wait_s):
        storm.blow(faults)


def _enqueue(plan: Plan, town: Town) -> dict[str, str]:
    """Enqueue at the plan's rate; the kind of each job by its id."""
    rng = random.Random(plan.seed)  # noqa: S311 - repeatable
    kinds: dict[str, str] = {}
    started_s = time.monotonic()
    for number in range(plan.jobs):
        kind = rng.choice(_KINDS)
        kinds[_enqueue_one(town, number, kind)] = kind
        ahead_s = number / plan.rate - (time.monotonic() - started_s)
        if ahead_s > 0:
            time.sleep(ahead_s)
    return kinds


def _enqueue_one(town: Town, number: int, kind: str) -> str:
    """As a service does it: with a key, again until it is confirmed."""
    deed = {"number": number, "kind": kind}
    for _ in range(_TRIES):
        try:
            return town.client.enqueue("storm_deed", deed, idempotency_key=str(number)).job_id
        except (TaskyardError, RedisError, OSError):
            time.sleep(0.25)
    raise RuntimeError(f"job {number} was not accepted in {_TRIES} tries")


def _await_calm(town: Town, job_ids: list[str]) -> None:
    """Until every job has its outcome and Postgres has been told, or for three minutes."""
    left = set(job_ids)
    ends = (State.COMPLETED, State.DEAD_LETTERED)

    def settled() -> bool:
        town.mend()
        try:
            for job, state in states_of(town, sorted(left)).items():
                if state in ends:
                    left.discard(job)
            return not left and _mirrored(town, len(job_ids))
        except (RedisError, SQLAlchemyError, TaskyardError):
            return False

    until(settled, within_s=_CALM_S, every_s=0.25)


def _mirrored(town: Town, count: int) -> bool:
    query = "SELECT count(*) FROM job_ledger WHERE state IN ('completed', 'dead_lettered')"
    missing = (
        "SELECT count(*) FROM job_ledger WHERE state = 'dead_lettered' AND letter_id NOT IN "
        "(SELECT id FROM dead_letter_queue)"
    )
    with town.engine.connect() as connection:
        told = connection.scalar(text(query))
        return told == count and not connection.scalar(text(missing))


def _recovery_s(town: Town, faults: Faults) -> float | None:
    witnessed: Any = town.witness.lrange(EFFECTS, 0, -1)
    moments = sorted(json.loads(raw)["at"] for raw in witnessed)
    waits = list(_waits(moments, faults.ended_at))
    return round(max(waits), 2) if waits else None


def _waits(moments: list[float], ends: list[float]) -> Iterator[float]:
    """From the end of each fault to the next effect; none where nothing was left to do."""
    for end in ends:
        later = [moment for moment in moments if moment >= end]
        if later:
            yield later[0] - end
