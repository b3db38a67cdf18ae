"""Benchmarks of Taskyard alone: pick-up latency, commands, profile, backlog, mirror, ledger."""

from __future__ import annotations

import statistics
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from bench.backlog import flatness
from bench.contenders import CELERY, TASKYARD, TASKYARD_RABBITMQ
from bench.growth import grown
from bench.ledger_lag import ledger_lag
from bench.mirroring import mirror_letters
from bench.pickup_latency import idle_cpu_percent, pickup_ms
from bench.profile import profile_job
from bench.rabbitmq import bench_with_rabbitmq
from bench.relaying import cancels, replays
from bench.round_trips import count_round_trips
from bench.sealing import sealing_cost
from bench.suite import Figures, NotMeasured, Stage

__all__ = [
    "backlog",
    "commands",
    "growth",
    "ledger",
    "mirror",
    "pickup_latency",
    "profile",
    "relay",
    "sealing",
]


def pickup_latency(stage: Stage) -> Figures:
    """An idle worker: pick-up of a job, and the cost of waiting."""
    bench, plan = stage.bench, stage.plan
    waits = pickup_ms(bench, TASKYARD, plan.pickups)
    return {
        "pickup_ms_median": round(statistics.median(waits), 2),
        "pickup_ms_p99": round(waits[int(len(waits) * 0.99)], 2),
        "idle_cpu_percent": round(idle_cpu_percent(bench, TASKYARD, plan.idle_s), 2),
        "idle_cpu_percent_celery": round(idle_cpu_percent(bench, CELERY, plan.idle_s), 2),
    }


def commands(stage: Stage) -> Figures:
    """Commands a job sends to Redis, counted on the wire."""
    ours = count_round_trips(stage.bench, TASKYARD, stage.plan.counted_jobs)
    celery = count_round_trips(stage.bench, CELERY, stage.plan.counted_jobs)
    return {
        "redis_round_trips_per_job": round(ours.child, 3),
        "redis_commands_per_job_main": round(ours.main, 3),
        "redis_commands_per_job_celery": round(celery.child, 3),
        "redis_commands_per_job_main_celery": round(celery.main, 3),
    }


def growth(stage: Stage) -> Figures:
    """What the main process keeps of the jobs it has served."""
    found = grown(stage.bench, stage.plan.growth_jobs)
    return {"worker_growth_mib": found.growth_mib, "worker_growth": asdict(found)}


def profile(stage: Stage) -> Figures:
    """Profile: where the time of one job goes."""
    return {"where_time_goes": profile_job(stage.bench, stage.plan.sampled_jobs)}


def backlog(stage: Stage) -> Figures:
    """A long backlog and a short one."""
    found = flatness(stage.bench, stage.plan.backlog, stage.plan.backlog_turns, stage.deadline)
    ratio = asdict(found.ratio)
    return {
        "backlog_flatness": found.ratio.median,
        "backlog_flatness_turns": ratio,
        "backlog": {
            "largest": found.largest,
            "jobs_per_s_small": round(found.jobs_per_s_small),
            "jobs_per_s_large": round(found.jobs_per_s_large),
        },
    }


def sealing(stage: Stage) -> Figures:
    """Operators' verbs with and without the audit log's sealer."""
    plan = stage.plan
    found = sealing_cost(
        stage.database_url, plan.sealing_turns, plan.sealing_turn_s, stage.deadline
    )
    return {
        "verbs_beside_sealer": found.ratio.median,
        "verbs_beside_sealer_turns": asdict(found.ratio),
        "sealing": asdict(found),
    }


def relay(stage: Stage) -> Figures:
    """Replays and cancels in bulk, and single verbs beside them; RabbitMQ's where there is one."""
    url, count = stage.database_url, stage.plan.relayed
    found = {
        "relay_replays": replays(stage.bench, TASKYARD, url, count),
        "relay_cancels": cancels(stage.bench, TASKYARD, url, count),
    }
    with suppress(NotMeasured), bench_with_rabbitmq(stage.bench) as bench:
        found["relay_rabbitmq_replays"] = replays(bench, TASKYARD_RABBITMQ, url, count)
    waits_ms = [took_ms for each in found.values() for took_ms in each.single_ms]
    return {
        **{f"{name}_per_s": round(each.per_s) for name, each in found.items()},
        **{f"{name}_cpu_ms": round(each.cpu_ms, 3) for name, each in found.items()},
        "relay_single_p99_ms": round(statistics.quantiles(waits_ms, n=100)[98]),
        "relay_single_median_ms": round(statistics.median(waits_ms)),
        "relay_single_verbs": len(waits_ms),
        "relay_intents": count,
    }


def mirror(stage: Stage) -> Figures:
    """The mirror's rows into Postgres."""
    found = mirror_letters(stage.bench, stage.database_url, stage.plan.letters)
    return {
        "mirror_rows_per_s": round(found.rows_per_s),
        "mirror_memory_growth": round(found.memory_growth, 3),
        "mirror_letters": stage.plan.letters,
    }


def ledger(stage: Stage) -> Figures:
    """How far the ledger falls behind a worker at full speed."""
    found: dict[str, Any] = asdict(
        ledger_lag(stage.bench, stage.database_url, stage.plan.ledger_jobs)
    )
    rounded = {k: round(v, 2) if isinstance(v, float) else v for k, v in found.items()}
    return {"ledger_lag": rounded}
