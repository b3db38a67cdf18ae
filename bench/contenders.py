"""Who is measured: how each is started, fed and asked how much is left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import redis

__all__ = [
    "CELERY",
    "CELERY_RABBITMQ",
    "NAIVE_LOCK",
    "RIVALS",
    "TASKYARD",
    "TASKYARD_RABBITMQ",
    "Contender",
]

PROCESSES = 2
_STEPS = ("", "\x06\x163", "\x06\x166", "\x06\x169")


@dataclass(frozen=True)
class Contender:
    """One library with the settings that lose nothing, where it has them.

    `argv` follows the Python of its environment; `copies` of it make `PROCESSES` processes.
    `packages` are installed into an environment of its own; without any it runs in ours.
    `database` is its own of the Redis server. With a `rabbit_queue` its messages go to RabbitMQ,
    which is asked for the backlog; records and results stay in Redis.
    """

    name: str
    app: str
    argv: Sequence[str]
    backlog: Callable[[redis.Redis], int]
    note: str
    copies: int = 1
    packages: Sequence[str] = ()
    database: int = 0
    rabbit_queue: str | None = None

    def python(self, environments: Path) -> str:
        """The interpreter that it runs in."""
        return str(environments / self.app / "bin" / "python") if self.packages else sys.executable


def _celery(app: str, queue: str) -> tuple[str, ...]:
    head = ("-m", "celery", "-A", app, "worker", "-Q", queue, "-c", str(PROCESSES))
    # Two nodes of one name lock each other out of RabbitMQ.
    return (*head, "-l", "WARNING", "-n", f"{app.rpartition('.')[2]}@%h")


def _lists(queue: str) -> Callable[[redis.Redis], int]:
    def backlog(client: redis.Redis) -> int:
        with client.pipeline(transaction=False) as pipe:
            for step in _STEPS:
                pipe.llen(queue + step)
            return sum(pipe.execute())

    return backlog


def _stream_backlog(client: redis.Redis) -> int:
    groups = client.xinfo_groups("bench") if client.exists("bench") else []
    if not groups:
        return int(client.xlen("bench"))
    return int(groups[0]["lag"] or 0) + int(groups[0]["pending"])


TASKYARD = Contender(
    "Taskyard",
    "taskyard_all_on",
    _celery("bench.apps.taskyard_all_on", "exec"),
    _lists("exec"),
    "leases, fencing, lifecycle stream, dead letters, result, events",
)
CELERY = Contender(
    "Celery",
    "celery_bare",
    _celery("bench.apps.celery_bare", "bench"),
    _lists("bench"),
    "acks_late, reject_on_worker_lost, Redis result backend, events, stock transport",
    database=1,
)
NAIVE_LOCK = Contender(
    "Celery + lock",
    "celery_naive_lock",
    _celery("bench.apps.celery_naive_lock", "bench"),
    _lists("bench"),
    "the same, with the run book's Redis lock and cached result",
    database=2,
)
TASKYARD_RABBITMQ = replace(
    TASKYARD,
    name="Taskyard on RabbitMQ",
    note="the same; every publish confirmed and mandatory, records in Redis",
    rabbit_queue="exec",
)
CELERY_RABBITMQ = replace(
    CELERY,
    name="Celery on RabbitMQ",
    app="celery_rabbitmq",
    argv=_celery("bench.apps.celery_rabbitmq", "bench"),
    note="the same with confirm_publish: every publish confirmed",
    rabbit_queue="bench",
)
RIVALS = (
    Contender(
        "Dramatiq",
        "dramatiq_app",
        ("-m", "dramatiq", "bench.apps.dramatiq_app", "-p", str(PROCESSES)),
        lambda client: int(client.llen("dramatiq:bench")),
        "acknowledges after the run; 8 threads a process, its default; no results, no events",
        packages=("dramatiq[redis]==2.2.1",),
    ),
    Contender(
        "RQ",
        "rq_app",
        ("-m", "rq.cli", "worker", "bench", "-q", "-w", "rq.worker.SimpleWorker"),
        lambda client: int(client.llen("rq:queue:bench")),
        "SimpleWorker: no fork for each job, and so no time limit by kill; results on",
        copies=PROCESSES,
        packages=("rq==2.12.0",),
    ),
    Contender(
        "RQ (fork)",
        "rq_app",
        ("-m", "rq.cli", "worker", "bench", "-q"),
        lambda client: int(client.llen("rq:queue:bench")),
        "its default: a fork for each job; results on",
        copies=PROCESSES,
        packages=("rq==2.12.0",),
    ),
    Contender(
        "arq",
        "arq_app",
        ("-m", "arq", "bench.apps.arq_app.WorkerSettings"),
        lambda client: int(client.zcard("bench")),
        "a job leaves the queue when done; 10 coroutines a process, its default; results on",
        copies=PROCESSES,
        packages=("arq==0.28.0",),
    ),
    Contender(
        "taskiq",
        "taskiq_app",
        ("-m", "taskiq", "worker", "bench.apps.taskiq_app:broker", "-w", str(PROCESSES)),
        _stream_backlog,
        "Redis stream, acknowledged when executed; coroutines; results on",
        packages=("taskiq==0.13.0", "taskiq-redis==1.2.4"),
    ),
    Contender(
        "huey",
        "huey_app",
        (
            "-m",
            "huey.bin.huey_consumer",
            "bench.apps.huey_app.app",
            "-w",
            str(PROCESSES),
            "-k",
            "process",
            "-q",
        ),
        lambda client: int(client.llen("huey.redis.bench")),
        "at most once: it has no other setting; results on",
        packages=("huey==3.5.4", "redis==8.1.0"),
    ),
)
