"""RQ: a job that its worker did not finish is found in the started registry."""

from __future__ import annotations

from typing import Any

from redis import Redis
from rq import Queue

from bench.apps.work import payload, redis_url, wait


def noop(_: Any) -> None:
    """Nothing."""


def io(_: Any) -> None:
    """A short wait."""
    wait()


def send(count: int, body: str, size: int) -> None:
    """Enqueue `count` jobs one by one."""
    queue = Queue("bench", connection=Redis.from_url(redis_url()))
    argument = payload(size)
    for _ in range(count):
        queue.enqueue(f"bench.apps.rq_app.{body}", argument)
