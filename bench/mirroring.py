"""How fast the mirror writes letters into Postgres, and whether its memory stays flat."""

from __future__ import annotations

import json
import statistics
import time
import uuid
from dataclasses import dataclass

import redis

from bench.mirror_process import mirror_process
from bench.processes import Bench, Workers
from taskyard.broker import connection
from taskyard.database import migrate
from taskyard.deadletters import mirror_queue
from taskyard.settings import Settings
from taskyard.wire.letter_categories import Category
from taskyard.wire.letter_envelope import Letter, RawMessage, letter_id

__all__ = ["Mirrored", "mirror_letters"]

_PATIENCE_S = 300.0
_AT_ONCE = 500


@dataclass(frozen=True)
class Mirrored:
    """Rows a second, and the process' last memory by that of its first tenth."""

    rows_per_s: float
    memory_growth: float


def mirror_letters(bench: Bench, database_url: str, count: int) -> Mirrored:
    """Fill the mirror's queue with `count` letters, then let one mirror empty it."""
    settings = Settings(redis_url=bench.url, broker_url=bench.url, database_url=database_url)
    migrate(database_url)
    client = redis.Redis.from_url(bench.url)
    client.flushall()
    _fill(settings, client, count)
    with mirror_process(bench, database_url) as workers:
        found = _watched(workers, client, mirror_queue(settings).name, count)
    client.close()
    return found


def _watched(workers: Workers, client: redis.Redis, queue: str, count: int) -> Mirrored:
    until = time.monotonic() + _PATIENCE_S
    times: list[tuple[float, int]] = []
    memory: list[int] = []
    while not times or times[-1][1] > 0:
        if time.monotonic() > until or workers.ended():
            raise TimeoutError(f"the mirror stopped with {times[-1:]} letters left")
        left = client.llen(queue) + client.hlen("unacked")
        times.append((time.monotonic(), left))
        if left < count * 0.9:
            memory.append(workers.pss_kib())
        time.sleep(0.05)
    steady = [(at, left) for at, left in times if count * 0.05 <= left <= count * 0.9]
    rate = (steady[0][1] - steady[-1][1]) / (steady[-1][0] - steady[0][0])
    first = statistics.median(memory[: max(len(memory) // 10, 1)])
    return Mirrored(rows_per_s=rate, memory_growth=memory[-1] / first)


def _fill(settings: Settings, client: redis.Redis, count: int) -> None:
    """Put letters into the queue as kombu would, many at a time."""
    queue = mirror_queue(settings)
    with connection(settings) as opened:
        queue(opened.default_channel).declare()
    for start in range(0, count, _AT_ONCE):
        letters = [_document(queue.name) for _ in range(min(_AT_ONCE, count - start))]
        client.lpush(queue.name, *letters)


def _document(queue: str) -> str:
    return json.dumps(
        {
            "body": _letter().encode().decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {},
            "properties": {
                "delivery_mode": 2,
                "priority": 0,
                "delivery_info": {"exchange": "taskyard.dead-letter", "routing_key": queue},
                "delivery_tag": str(uuid.uuid4()),
            },
        }
    )


def _letter() -> Letter:
    job_id, now_us = str(uuid.uuid4()), int(time.time() * 1_000_000)
    body = json.dumps([[{"url": "https://shop.example/cart", "n": 1}], {}, {}]).encode()
    return Letter(
        letter_id=letter_id(job_id, now_us, 0),
        job_id=job_id,
        epoch=now_us,
        generation=0,
        version=3,
        job_type="test_execution",
        queue="exec",
        priority=3,
        message=RawMessage(
            body=body,
            headers={"id": job_id, "task": "test_execution"},
            properties={"correlation_id": job_id},
            content_type="application/json",
            content_encoding="utf-8",
        ),
        args=[{"url": "https://shop.example/cart", "n": 1}],
        kwargs={},
        category=Category.NON_RETRYABLE,
        code="element_not_found",
        error_class="ElementNotFound",
        error_message="no element matches #buy",
        traceback="Traceback (most recent call last):\n" + "  File ...\n" * 12,
        fingerprint="f00d",
        first_failure_us=now_us,
        last_failure_us=now_us,
        replay_eligible=True,
    )
