"""One storm over one set-up: load, faults, settling, audit."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from chaos.audit import Audit, audit
from chaos.cluster import Cluster
from chaos.disks import SmallDisk
from chaos.effects import EFFECTS
from chaos.faults import Faults
from chaos.flushes import audit_effects, await_effects
from chaos.load import Plan, enqueue
from chaos.named import Named, kill_all_and_reconcile
from chaos.operators import Operators, operating
from chaos.settle import Settled, await_most, await_settled
from chaos.setups import SETUPS
from chaos.storms import STORMS, Storm
from chaos.stranded import Waits, last_before, waits
from chaos.switches import Flips, Judged, flipping

__all__ = ["Plan", "Result", "run_storm"]


_NAMED: Final = 10
# Of the faults of a storm that kills workers, one in so many kills all of them and asks
# `taskyard reconcile` what stands still.
_LOOK_EVERY: Final = 12


@dataclass(frozen=True, slots=True)
class Result:
    """What a storm left behind; `skipped` says why there was none.

    `recovery_s`: longest time from the end of a fault to the next effect. `back_s`: the same to
    the next event of a job that was in hand; `stranded`: the jobs for which that took over 45 s,
    or that nothing went on with 45 s after the storm. `calm_s`: from the end of the storm until
    every job had its outcome and Postgres knew of it. `took_s`: all of it. `ended`: the workers,
    mirrors and relays that ended by themselves. `verbs`: what became of what operators tried;
    `flips`: switches that were turned; `flips_back_s`: the longest time for which Redis lacked one.
    """

    storm: str
    setup: str
    seed: int
    rate: float
    faults: int = 0
    recovery_s: float | None = None
    back_s: float | None = None
    calm_s: float | None = None
    took_s: float | None = None
    audit: Audit | None = None
    skipped: str = ""
    stranded: int = 0
    stranded_jobs: list[str] = field(default_factory=list)
    slowest_jobs: list[str] = field(default_factory=list)
    left_behind: int = 0
    unnamed: int = 0
    unnamed_jobs: list[str] = field(default_factory=list)
    ended_by_itself: int = 0
    ended: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    verbs: dict[str, int] = field(default_factory=dict)
    flips: int = 0
    flips_back_s: float | None = None

    def document(self) -> dict[str, Any]:
        """One entry of chaos.json."""
        whole = asdict(self)
        counted = whole.pop("audit") or {}
        return {**whole, **counted}


def run_storm(plan: Plan, folder: Path) -> Result:
    """Run one storm in `folder`."""
    storm = STORMS[plan.storm]
    disk = SmallDisk(folder, storm.small_disk) if storm.small_disk else None
    if disk is not None and not disk.mount():
        why = f"no small file system can be mounted here: {disk.reason}"
        return Result(plan.storm, plan.setup, plan.seed, plan.rate, skipped=why)
    try:
        setup, shifts_s = SETUPS[plan.setup], storm.shifts_s
        with Cluster(
            folder, setup, proxied=storm.proxied, shifts_s=shifts_s, replies=storm.operated
        ) as cluster:
            return _run_storm(plan, cluster)
    finally:
        if disk is not None:
            disk.unmount()


def _run_storm(plan: Plan, cluster: Cluster) -> Result:
    looks: list[Named] = []
    job_ids: list[str] = []
    operators = Operators(cluster, job_ids, f"{plan.storm} {plan.seed}")
    rng = random.Random(f"{plan.storm} {plan.seed}")  # noqa: S311 - repeatable is what it must be
    faults, started_s = Faults(cluster, rng, threading.Event()), time.monotonic()
    storm, flips = STORMS[plan.storm], Flips(cluster, f"{plan.storm} {plan.seed}")
    with ThreadPoolExecutor(1) as pool, _acting(storm, operators, flips):
        injecting = pool.submit(_inject_faults, plan, faults, looks)
        try:
            kinds = enqueue(plan, cluster, injecting, job_ids)
            await_most(cluster, plan)
        finally:
            faults.stop.set()
        injecting.result()
    settled, found = _settle(storm, cluster, kinds)
    waited = waits(cluster, faults)
    judged = flips.judge(faults.spans_us) if storm.flips else Judged()
    found.contradictions += found.name("switches", judged.wrong)
    stranded = _stranded(settled, waited)
    return Result(
        plan.storm,
        plan.setup,
        plan.seed,
        plan.rate,
        faults=len(faults.ended_at),
        recovery_s=_recovery_s(cluster, faults),
        back_s=waited.longest_s,
        calm_s=settled.seconds,
        took_s=round(time.monotonic() - started_s, 1),
        audit=found,
        stranded=len(stranded),
        stranded_jobs=sorted(stranded.values())[:_NAMED],
        slowest_jobs=waited.slowest,
        left_behind=sum(look.stranded for look in looks),
        unnamed=sum(look.unnamed for look in looks),
        unnamed_jobs=[line for look in looks for line in look.said],
        ended_by_itself=len(cluster.supervisor.ended),
        ended=cluster.supervisor.ended,
        told=faults.told,
        verbs=dict(sorted((operators.asked + flips.asked).items())),
        flips=judged.flips,
        flips_back_s=judged.behind_s,
    )


@contextmanager
def _acting(storm: Storm, operators: Operators, flips: Flips) -> Iterator[None]:
    """Let operators act and flip switches, if it is a storm of such."""
    with ExitStack() as acting:
        if storm.operated:
            acting.enter_context(operating(operators))
        if storm.flips:
            acting.enter_context(flipping(flips))
        yield


def _settle(storm: Storm, cluster: Cluster, kinds: Mapping[str, str]) -> tuple[Settled, Audit]:
    """Wait until the cluster is calm, start what has ended, and audit the jobs."""
    if storm.forgets:
        settled = await_effects(cluster, len(kinds))
        cluster.supervisor.ensure()
        return settled, audit_effects(cluster, kinds)
    settled = await_settled(cluster, [*kinds])
    cluster.supervisor.ensure()
    return settled, audit(cluster, kinds, settled.lost_in_pop, settled.held_back)


def _stranded(settled: Settled, waited: Waits) -> dict[str, str]:
    """Return the jobs that stood still for too long, by id, each with what is known of it."""
    stranded = {job: f"{job}: {why}" for job, why in settled.stopped.items()}
    stranded |= {job: f"{job}: went on after {after_s} s" for job, after_s in waited.late.items()}
    lost = set(settled.lost_in_pop)
    return {job: text for job, text in stranded.items() if job not in lost}


def _inject_faults(plan: Plan, faults: Faults, looks: list[Named]) -> None:
    storm = STORMS[plan.storm]
    low_s, high_s = storm.wait_s
    while faults.pause(low_s * plan.stretch, high_s * plan.stretch):
        if storm.looks and len(faults.ended_at) % _LOOK_EVERY == 0:
            looks.append(kill_all_and_reconcile(faults))
            continue
        with faults.span():
            storm.inject(faults)
        # What gave up because of it, such as a worker whose child died while it started.
        faults.cluster.mend()


def _recovery_s(cluster: Cluster, faults: Faults) -> float | None:
    entries: Any = cluster.effects_log.lrange(EFFECTS, 0, -1)
    moments = sorted(json.loads(raw)["at"] for raw in entries)
    waits = list(_waits(moments, faults))
    return round(max(waits), 2) if waits else None


def _waits(moments: list[float], faults: Faults) -> Iterator[float]:
    """From the end of each fault to the next effect; none where nothing was left to do."""
    for end in faults.ended_at:
        later = [moment for moment in moments if moment >= end]
        if later:
            yield later[0] - last_before(later[0], end, faults.all_dead_until)
