"""The parts of a run in their order, with what each takes on two cores."""

from __future__ import annotations

from typing import Final

from bench.alone import attention, backlog, commands, growth, ledger, mirror, steps
from bench.beside import bodies, enqueue_many, memory, throughput
from bench.course import Part
from bench.rabbitmq import rabbitmq
from bench.rivals import rivals
from bench.service import service

__all__ = ["PARTS"]

PARTS: Final = (
    Part("throughput", "no-op jobs beside Celery and the lock", throughput, 240, 25),
    Part("many", "enqueue_many beside Celery's delay in a loop", enqueue_many, 50, 10),
    Part("service", "1,000 aenqueue calls at once, 1,000 results awaited", service, 60, 20),
    Part("bodies", "a body of 5 ms, payloads of 64 KiB", bodies, 150, 22),
    Part("memory", "what a worker needs", memory, 60, 12),
    Part("growth", "what the main process keeps of 200,000 jobs", growth, 190, 12),
    Part("rabbitmq", "both on RabbitMQ", rabbitmq, 145, 25),
    Part("rivals", "Dramatiq, RQ, arq, taskiq, huey", rivals, 360, 28),
    Part("attention", "an idle worker: pick-up, processor time", attention, 70, 20),
    Part("commands", "commands a job sends to Redis", commands, 25, 7),
    Part("steps", "where the time of one job goes", steps, 20, 5),
    Part("mirror", "letters into Postgres", mirror, 75, 3),
    Part("ledger", "the ledger beside a worker at full speed", ledger, 110, 10),
    Part("backlog", "a million jobs waiting", backlog, 240, 14),
)
