"""The other libraries, with Taskyard in the same turns; each worker starts anew."""

from __future__ import annotations

from typing import Final

from bench.beside import KIB, enqueued, median, rates, times_ours
from bench.contenders import RIVALS, TASKYARD, Contender
from bench.interleaved import interleaved
from bench.suite import Figures, Stage
from bench.throughput import Drained, drain

__all__ = ["rivals"]

# Those that start a process for a job, or look for work at intervals.
_SLOW: Final = frozenset({"RQ (fork)"})
_ALL: Final = (TASKYARD, *RIVALS)


def rivals(stage: Stage) -> Figures:
    """No-op and 5 ms jobs of 1 KiB."""
    plan = stage.plan

    def one(contender: Contender) -> tuple[Drained, Drained | None]:
        slow = contender.name in _SLOW
        jobs = plan.slow_rival_jobs if slow else plan.rival_jobs
        noop = drain(stage.bench, contender, jobs, "noop", KIB)
        if not plan.rival_io_jobs:
            return noop, None
        jobs = plan.slow_rival_jobs if slow else plan.rival_io_jobs
        return noop, drain(stage.bench, contender, jobs, "io", KIB)

    runs = interleaved(_ALL, plan.rival_rounds, stage.deadline, one)
    noops = {name: [noop for noop, _ in done] for name, done in runs.items()}
    waits = {name: [io for _, io in done if io is not None] for name, done in runs.items()}
    return {
        "rivals_noop": {name: median(rates(done)) for name, done in noops.items()},
        "rivals_noop_times_taskyard": times_ours(noops, TASKYARD),
        "rivals_enqueue": {name: median(enqueued(done)) for name, done in noops.items()},
        "rivals_io_5ms": {name: median(rates(done)) for name, done in waits.items() if done},
    }
