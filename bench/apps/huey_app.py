"""huey: pops a job before it runs; it has no setting that runs a job at least once."""

from __future__ import annotations

from typing import Any

from huey import RedisHuey

from bench.apps.work import payload, redis_url, wait

app = RedisHuey("bench", url=redis_url())


@app.task()
def noop(_: Any) -> None:
    """Nothing."""


@app.task()
def io(_: Any) -> None:
    """A short wait."""
    wait()


def send(count: int, body: str, size: int) -> None:
    """Enqueue `count` jobs one by one."""
    task, argument = {"noop": noop, "io": io}[body], payload(size)
    for _ in range(count):
        task(argument)
