"""The measurements in their order; what is compared runs in turns, A B A B."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.attention import idle_cpu_percent, pickup_ms
from bench.backlog import flatness
from bench.contenders import CELERY, NAIVE_LOCK, RIVALS, TASKYARD, Contender
from bench.mirroring import mirror_letters
from bench.plan import Plan
from bench.processes import Bench
from bench.round_trips import count_round_trips
from bench.throughput import Drained, drain

__all__ = ["Figures", "measure"]

Figures = dict[str, Any]
KIB = 1024
_FORKS = "RQ (fork)"


def measure(bench: Bench, database_url: str, plan: Plan) -> Figures:
    """Everything, as the keys of bench.json."""
    figures: Figures = {}
    for part in (_throughput, _enqueue_many, _bodies, _rivals, _attention, _commands, _backlog):
        _say(part.__doc__ or part.__name__)
        figures |= part(bench, plan)
    _say("The mirror's rows into Postgres.")
    mirrored = mirror_letters(bench, database_url, plan.letters)
    figures["mirror_rows_per_s"] = round(mirrored.rows_per_s)
    figures["mirror_memory_growth"] = round(mirrored.memory_growth, 3)
    figures["mirror_letters"] = plan.letters
    return figures


def _throughput(bench: Bench, plan: Plan) -> Figures:
    """No-op jobs of 1 KiB: Taskyard, Celery and the lock in turns."""
    three = (TASKYARD, CELERY, NAIVE_LOCK)
    runs = _in_turns(bench, three, plan.rounds, plan.jobs, "noop", KIB)
    ours, celery, lock = (runs[each.name] for each in three)
    return {
        "throughput_vs_celery": _ratio(ours, celery, "jobs_per_s"),
        "throughput_vs_naive_lock": _ratio(ours, lock, "jobs_per_s"),
        "enqueue_vs_celery": _ratio(ours, celery, "enqueued_per_s"),
        "worker_memory_vs_celery": _ratio(ours, celery, "pss_kib"),
        "rounds": {name: [_rounded(asdict(run)) for run in done] for name, done in runs.items()},
        "noop": {name: _median(done, "jobs_per_s") for name, done in runs.items()},
        "enqueue": {name: _median(done, "enqueued_per_s") for name, done in runs.items()},
        "memory_mib": {name: _median(done, "pss_kib") / KIB for name, done in runs.items()},
        "main_cpu_ms": {name: _median(done, "main_cpu_ms") for name, done in runs.items()},
        "children_cpu_ms": {name: _median(done, "children_cpu_ms") for name, done in runs.items()},
    }


def _enqueue_many(bench: Bench, plan: Plan) -> Figures:
    """`enqueue_many` against Celery's `delay` in a loop, in turns."""
    ours, celery = [], []
    for _ in range(plan.many_rounds):
        bench.empty()
        ours.append(bench.send(TASKYARD, plan.many_jobs, "noop", KIB, "send_many"))
        bench.empty()
        celery.append(bench.send(CELERY, plan.many_jobs // 5, "noop", KIB, "send"))
    ratios = [a / b for a, b in zip(ours, celery, strict=True)]
    return {
        "enqueue_many_vs_celery": round(statistics.median(ratios), 2),
        "enqueue_many": round(statistics.median(ours)),
    }


def _bodies(bench: Bench, plan: Plan) -> Figures:
    """A body that waits 5 ms, and a payload of 64 KiB: Taskyard, Celery and the lock in turns."""
    three = (TASKYARD, CELERY, NAIVE_LOCK)
    io = _in_turns(bench, three, plan.io_rounds, plan.io_jobs, "io", KIB)
    large = _in_turns(bench, three[:2], plan.payload_rounds, plan.payload_jobs, "noop", 64 * KIB)
    return {
        "io_5ms": {name: _median(done, "jobs_per_s") for name, done in io.items()},
        "payload_64kib": {name: _median(done, "jobs_per_s") for name, done in large.items()},
        "io_vs_celery": _ratio(io[TASKYARD.name], io[CELERY.name], "jobs_per_s"),
        "payload_64kib_vs_celery": _ratio(large[TASKYARD.name], large[CELERY.name], "jobs_per_s"),
    }


def _rivals(bench: Bench, plan: Plan) -> Figures:
    """The other libraries, with Taskyard in the same turns."""
    figures: Figures = {"rivals_noop": {}, "rivals_io_5ms": {}, "rivals_enqueue": {}}
    all_of_them = (TASKYARD, *RIVALS)
    runs: dict[str, list[Drained]] = {each.name: [] for each in all_of_them}
    waits: dict[str, list[Drained]] = {each.name: [] for each in all_of_them}
    for _ in range(plan.rival_rounds):
        for each in all_of_them:
            slow = each.name == _FORKS
            jobs = plan.slow_rival_jobs if slow else plan.rival_jobs
            runs[each.name].append(drain(bench, each, jobs, "noop", KIB))
            if plan.rival_io_jobs:
                jobs = plan.slow_rival_jobs if slow else plan.rival_io_jobs
                waits[each.name].append(drain(bench, each, jobs, "io", KIB))
    for name, done in runs.items():
        figures["rivals_noop"][name] = _median(done, "jobs_per_s")
        figures["rivals_enqueue"][name] = _median(done, "enqueued_per_s")
        if waits[name]:
            figures["rivals_io_5ms"][name] = _median(waits[name], "jobs_per_s")
    return figures


def _attention(bench: Bench, plan: Plan) -> Figures:
    """An idle worker: pick-up of a job, and the cost of waiting."""
    waits = pickup_ms(bench, TASKYARD, plan.pickups)
    return {
        "pickup_ms_median": round(statistics.median(waits), 2),
        "pickup_ms_p99": round(waits[int(len(waits) * 0.99)], 2),
        "idle_cpu_percent": round(idle_cpu_percent(bench, TASKYARD, plan.idle_s), 2),
        "idle_cpu_percent_celery": round(idle_cpu_percent(bench, CELERY, plan.idle_s), 2),
    }


def _commands(bench: Bench, plan: Plan) -> Figures:
    """Commands a job sends to Redis, counted on the wire."""
    ours = count_round_trips(bench, TASKYARD, plan.counted_jobs)
    celery = count_round_trips(bench, CELERY, plan.counted_jobs)
    return {
        "redis_round_trips_per_job": round(ours.child, 3),
        "redis_commands_per_job_main": round(ours.main, 3),
        "redis_commands_per_job_celery": round(celery.child, 3),
        "redis_commands_per_job_main_celery": round(celery.main, 3),
    }


def _backlog(bench: Bench, plan: Plan) -> Figures:
    """A long backlog and a short one, in turns."""
    found = flatness(bench, plan.backlog, plan.backlog_turns)
    return {"backlog_flatness": round(found.ratio, 3), "backlog": _rounded(asdict(found))}


def _in_turns(
    bench: Bench, contenders: Sequence[Contender], rounds: int, jobs: int, body: str, size: int
) -> dict[str, list[Drained]]:
    runs: dict[str, list[Drained]] = {each.name: [] for each in contenders}
    for _ in range(rounds):
        for each in contenders:
            runs[each.name].append(drain(bench, each, jobs, body, size))
    return runs


def _ratio(ours: list[Drained], theirs: list[Drained], field: str) -> float:
    """The median of the rounds' ratios."""
    pairs = zip(ours, theirs, strict=True)
    ratios = [float(getattr(a, field) / getattr(b, field)) for a, b in pairs]
    return round(statistics.median(ratios), 3)


def _median(runs: list[Drained], field: str) -> float:
    return round(float(statistics.median(getattr(run, field) for run in runs)), 3)


def _rounded(facts: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in facts.items()}


def _say(what: str) -> None:
    sys.stderr.write(f"... {what.splitlines()[0]}\n")
    sys.stderr.flush()
