"""What every library's job does, and where its Redis is."""

from __future__ import annotations

import os
import time

__all__ = ["IO_S", "broker_url", "payload", "redis_url", "wait"]

# A short wait for a database or another service.
IO_S = 0.005


def redis_url() -> str:
    """The server that this run measures against."""
    return os.environ["BENCH_REDIS_URL"]


def broker_url() -> str:
    """Where messages go: that server, or a RabbitMQ."""
    return os.environ["BENCH_BROKER_URL"]


def payload(size: int) -> dict[str, str]:
    """A job's argument of about `size` bytes."""
    return {"data": "x" * size}


def wait() -> None:
    """The body that waits for something."""
    time.sleep(IO_S)
