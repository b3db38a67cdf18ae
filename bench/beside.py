"""Taskyard beside Celery, bare and with the run book's lock, in turns on one Redis."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from bench.contenders import CELERY, NAIVE_LOCK, TASKYARD, Contender
from bench.interleaved import interleaved
from bench.paused_workers import paused_workers
from bench.spread import ratios, spread
from bench.suite import Figures, Stage
from bench.throughput import Drained, drain

__all__ = [
    "KIB",
    "bodies",
    "cpu_ms",
    "enqueue_many",
    "enqueued",
    "median",
    "memory",
    "rates",
    "throughput",
    "times_ours",
    "versus",
]

KIB: Final = 1024
_THREE: Final = (TASKYARD, CELERY, NAIVE_LOCK)
# `delay` in a loop is slower by so much; both sides of a turn then take about as long.
_FEWER: Final = 5

Runs = dict[str, list[Drained]]


def throughput(stage: Stage) -> Figures:
    """No-op jobs of 1 KiB, and what enqueueing them one by one costs."""
    plan = stage.plan
    runs = _standing_turns(stage, _THREE, plan.rounds, plan.jobs, "noop", KIB)
    ours, celery, lock = (runs[each.name] for each in _THREE)
    return {
        **versus("throughput_vs_celery", rates(ours), rates(celery)),
        **versus("throughput_vs_naive_lock", rates(ours), rates(lock)),
        **versus("worker_cpu_vs_celery", cpu_ms(ours), cpu_ms(celery)),
        **versus("enqueue_vs_celery", enqueued(ours), enqueued(celery)),
        "noop": {name: median(rates(done)) for name, done in runs.items()},
        "noop_times_taskyard": times_ours(runs, TASKYARD),
        "enqueue": {name: median(enqueued(done)) for name, done in runs.items()},
        "main_cpu_ms": {name: median([r.main_cpu_ms for r in done]) for name, done in runs.items()},
        "children_cpu_ms": {
            name: median([r.children_cpu_ms for r in done]) for name, done in runs.items()
        },
        "rounds": {name: [_rounded(asdict(run)) for run in done] for name, done in runs.items()},
    }


def enqueue_many(stage: Stage) -> Figures:
    """`enqueue_many` against Celery's `delay` in a loop."""
    plan, bench = stage.plan, stage.bench

    def one(contender: Contender) -> float:
        bench.empty()
        if contender is TASKYARD:
            return bench.send(contender, plan.many_jobs, "noop", KIB, "send_many")
        return bench.send(contender, plan.many_jobs // _FEWER, "noop", KIB, "send")

    found = interleaved((TASKYARD, CELERY), plan.many_rounds, stage.deadline, one)
    ours = found[TASKYARD.name]
    figures = versus("enqueue_many_vs_celery", ours, found[CELERY.name])
    return {**figures, "enqueue_many": round(statistics.median(ours))}


def bodies(stage: Stage) -> Figures:
    """A body that waits 5 ms, and a payload of 64 KiB."""
    plan = stage.plan
    io = _standing_turns(stage, _THREE, plan.io_rounds, plan.io_jobs, "io", KIB)
    large = _standing_turns(
        stage, _THREE[:2], plan.payload_rounds, plan.payload_jobs, "noop", 64 * KIB
    )
    ours, celery = TASKYARD.name, CELERY.name
    return {
        **versus("io_vs_celery", rates(io[ours]), rates(io[celery])),
        **versus("payload_64kib_vs_celery", rates(large[ours]), rates(large[celery])),
        "io_5ms": {name: median(rates(done)) for name, done in io.items()},
        "payload_64kib": {name: median(rates(done)) for name, done in large.items()},
    }


def memory(stage: Stage) -> Figures:
    """What a worker needs that stands alone: the others would take their part of shared pages."""
    plan = stage.plan

    def one(contender: Contender) -> float:
        return float(drain(stage.bench, contender, plan.memory_jobs, "noop", KIB).pss_kib)

    found = interleaved(_THREE, plan.memory_rounds, stage.deadline, one)
    return {
        **versus("worker_memory_vs_celery", found[TASKYARD.name], found[CELERY.name]),
        "memory_mib": {name: round(median(kib) / KIB, 1) for name, kib in found.items()},
    }


def versus(key: str, ours: Sequence[float], theirs: Sequence[float]) -> Figures:
    """The figure under its key, and under `turns` how far its turns lay apart."""
    found = spread(ratios(ours, theirs))
    return {key: found.median, f"{key}_turns": asdict(found)}


def times_ours(runs: Runs, ours: Contender) -> dict[str, float]:
    """Everybody's rate as a multiple of ours: again the median of the turns' ratios."""
    own = rates(runs[ours.name])
    return {name: spread(ratios(rates(done), own)).median for name, done in runs.items()}


def rates(runs: Sequence[Drained]) -> list[float]:
    """Jobs a second of each turn."""
    return [run.jobs_per_s for run in runs]


def cpu_ms(runs: Sequence[Drained]) -> list[float]:
    """Processor time of the whole worker for a job; what else the machine does hardly moves it."""
    return [run.main_cpu_ms + run.children_cpu_ms for run in runs]


def enqueued(runs: Sequence[Drained]) -> list[float]:
    """Jobs enqueued a second in each turn."""
    return [run.enqueued_per_s for run in runs]


def median(values: Sequence[float]) -> float:
    """To three decimals."""
    return round(float(statistics.median(values)), 3)


def _standing_turns(
    stage: Stage, contenders: Sequence[Contender], rounds: int, jobs: int, body: str, size: int
) -> Runs:
    with paused_workers(stage.bench, contenders) as ready:
        return interleaved(
            contenders, rounds, stage.deadline, lambda one: ready.turn(one, jobs, body, size)
        )


def _rounded(facts: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in facts.items()}
