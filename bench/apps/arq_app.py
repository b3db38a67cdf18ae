"""arq: a job leaves its queue when it is done."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from arq import create_pool
from arq.connections import RedisSettings

from bench.apps.work import IO_S, payload, redis_url


async def noop(_: Any, __: Any) -> None:
    """Nothing."""


async def io(_: Any, __: Any) -> None:
    """A short wait."""
    await asyncio.sleep(IO_S)


class WorkerSettings:
    """What `arq bench.apps.arq_app.WorkerSettings` runs."""

    functions: ClassVar[list[Any]] = [noop, io]
    redis_settings = RedisSettings.from_dsn(redis_url())
    queue_name = "bench"


async def _send(count: int, body: str, size: int) -> None:
    pool = await create_pool(RedisSettings.from_dsn(redis_url()))
    argument = payload(size)
    for _ in range(count):
        await pool.enqueue_job(body, argument, _queue_name="bench")


def send(count: int, body: str, size: int) -> None:
    """Enqueue `count` jobs one by one."""
    asyncio.run(_send(count, body, size))
