"""The benchmarks of a run in their order, with what each takes on two cores."""

from __future__ import annotations

from typing import Final

from bench.alone import (
    backlog,
    commands,
    growth,
    ledger,
    mirror,
    pickup_latency,
    profile,
    relay,
    sealing,
)
from bench.beside import bodies, enqueue_many, memory, throughput
from bench.rabbitmq import rabbitmq
from bench.rivals import rivals
from bench.service import service
from bench.suite import Benchmark

__all__ = ["BENCHMARKS", "BY_NAME"]

BENCHMARKS: Final = (
    Benchmark("throughput", "no-op jobs beside Celery and the lock", throughput, 240, 25),
    Benchmark("many", "enqueue_many beside Celery's delay in a loop", enqueue_many, 50, 10),
    Benchmark("service", "1,000 aenqueue calls at once, 1,000 results awaited", service, 60, 20),
    Benchmark("bodies", "a body of 5 ms, payloads of 64 KiB", bodies, 150, 22),
    Benchmark("memory", "what a worker needs", memory, 60, 12),
    Benchmark("growth", "what the main process keeps of 200,000 jobs", growth, 190, 12),
    Benchmark("rabbitmq", "both on RabbitMQ", rabbitmq, 145, 25),
    Benchmark("rivals", "Dramatiq, RQ, arq, taskiq, huey", rivals, 260, 28),
    Benchmark("attention", "an idle worker: pick-up, processor time", pickup_latency, 70, 20),
    Benchmark("commands", "commands a job sends to Redis", commands, 25, 7),
    Benchmark("steps", "where the time of one job goes", profile, 20, 5),
    Benchmark("mirror", "letters into Postgres", mirror, 75, 3),
    Benchmark("relay", "operators' verbs in bulk, single ones beside them", relay, 90, 35),
    Benchmark("ledger", "the ledger beside a worker at full speed", ledger, 110, 10),
    Benchmark("backlog", "a million jobs waiting", backlog, 240, 14),
)
# Measured by `--only` alone: a whole run has its half an hour without it.
BY_NAME: Final = (
    Benchmark("sealing", "operators' verbs beside the audit log's sealer", sealing, 290, 42),
)
