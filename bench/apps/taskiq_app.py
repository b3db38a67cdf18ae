"""taskiq on a Redis stream, acknowledged after the run."""

from __future__ import annotations

import asyncio
from typing import Any

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from bench.apps.work import IO_S, payload, redis_url

broker = RedisStreamBroker(redis_url(), queue_name="bench").with_result_backend(
    RedisAsyncResultBackend(redis_url(), result_ex_time=3600)
)


@broker.task(task_name="noop")
async def noop(_: Any) -> None:
    """Nothing."""


@broker.task(task_name="io")
async def io(_: Any) -> None:
    """A short wait."""
    await asyncio.sleep(IO_S)


async def _send(count: int, body: str, size: int) -> None:
    await broker.startup()
    task, argument = {"noop": noop, "io": io}[body], payload(size)
    for _ in range(count):
        await task.kiq(argument)
    await broker.shutdown()


def send(count: int, body: str, size: int) -> None:
    """Enqueue `count` jobs one by one."""
    asyncio.run(_send(count, body, size))
