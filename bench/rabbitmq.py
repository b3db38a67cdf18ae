"""Both on RabbitMQ, with a server of its own: messages there, records and results in Redis."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from kombu import Connection

from bench.beside import KIB, cpu_ms, enqueued, median, rates, versus
from bench.contenders import CELERY_RABBITMQ, TASKYARD_RABBITMQ, Contender
from bench.interleaved import interleaved
from bench.paused_workers import PausedWorkers, paused_workers
from bench.processes import Bench
from bench.suite import Figures, NotMeasured, Stage
from servers import RABBITMQ_BINARIES, RabbitMQ

__all__ = ["bench_with_rabbitmq", "rabbitmq"]

_BOTH: Final = (TASKYARD_RABBITMQ, CELERY_RABBITMQ)


def rabbitmq(stage: Stage) -> Figures:
    """No-op jobs of 1 KiB, `enqueue`, and `enqueue_many` against `delay` in a loop."""
    plan = stage.plan
    with bench_with_rabbitmq(stage.bench) as bench, paused_workers(bench, _BOTH) as ready:
        version = _version(bench.broker_of(TASKYARD_RABBITMQ))
        runs = interleaved(
            _BOTH,
            plan.rabbitmq_rounds,
            stage.deadline,
            lambda one: ready.turn(one, plan.jobs, "noop", KIB),
        )
        many = interleaved(
            _BOTH,
            plan.rabbitmq_many_rounds,
            stage.deadline,
            lambda one: _many(ready, one, plan.rabbitmq_many_jobs),
        )
    ours, celery = (each.name for each in _BOTH)
    return {
        **versus("rabbitmq_throughput_vs_celery", rates(runs[ours]), rates(runs[celery])),
        **versus("rabbitmq_worker_cpu_vs_celery", cpu_ms(runs[ours]), cpu_ms(runs[celery])),
        **versus("rabbitmq_enqueue_vs_celery", enqueued(runs[ours]), enqueued(runs[celery])),
        **versus("rabbitmq_enqueue_many_vs_celery", many[ours], many[celery]),
        "rabbitmq_version": version,
        "rabbitmq_noop": {name: median(rates(done)) for name, done in runs.items()},
        "rabbitmq_cpu_ms": {name: median(cpu_ms(done)) for name, done in runs.items()},
        "rabbitmq_enqueue": {name: median(enqueued(done)) for name, done in runs.items()},
        "rabbitmq_enqueue_many": round(statistics.median(many[ours])),
    }


def _many(ready: PausedWorkers, contender: Contender, count: int) -> float:
    how = "send_many" if contender is TASKYARD_RABBITMQ else "send"
    return ready.enqueue(contender, count, "noop", KIB, how)


def _version(url: str) -> str:
    with Connection(url) as opened:
        return str(opened.connection.server_properties["version"])


@contextmanager
def bench_with_rabbitmq(bench: Bench) -> Iterator[Bench]:
    """A RabbitMQ of its own beside the bench's Redis; raises `NotMeasured` without the program."""
    if shutil.which("rabbitmq-server", path=str(RABBITMQ_BINARIES)) is None:
        raise NotMeasured(
            f"expected rabbitmq-server in {RABBITMQ_BINARIES}, there is none; install RabbitMQ"
        )
    home = bench.folder / "bench-rabbitmq"
    shutil.rmtree(home, ignore_errors=True)
    server = RabbitMQ(home)
    try:
        server.start()
        yield replace(bench, rabbitmq_url=server.url)
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)
