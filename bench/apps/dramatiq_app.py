"""Dramatiq: acknowledges after the run, retries what a dead worker held."""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.apps.work import payload, redis_url, wait

dramatiq.set_broker(RedisBroker(url=redis_url()))


@dramatiq.actor(queue_name="bench")
def noop(_: Any) -> None:
    """Nothing."""


@dramatiq.actor(queue_name="bench")
def io(_: Any) -> None:
    """A short wait."""
    wait()


def send(count: int, body: str, size: int) -> None:
    """Enqueue `count` jobs one by one."""
    actor, argument = {"noop": noop, "io": io}[body], payload(size)
    for _ in range(count):
        actor.send(argument)
