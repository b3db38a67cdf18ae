"""The Redis client: short timeouts, bounded retries, errors in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from taskyard.errors import InvalidSettings, ServerUnreachable
from taskyard.wire.redaction import redact_url

__all__ = ["LOST", "connect", "reachable"]

LOST: Final = (RedisConnectionError, RedisTimeoutError)
_SOCKET_TIMEOUT_S: Final = 5.0


def connect(url: str, *, retries: int = 3) -> redis.Redis:
    """A client for `url`; nothing is sent yet. Raises `InvalidSettings` for a URL it cannot read.

    Every script here answers the same when it is asked twice, so a lost connection is retried
    `retries` times, 0.05 to 1 s apart.
    """
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=_SOCKET_TIMEOUT_S,
            socket_connect_timeout=_SOCKET_TIMEOUT_S,
            socket_keepalive=True,
            health_check_interval=30,
            retry=Retry(ExponentialWithJitterBackoff(cap=1.0, base=0.05), retries),
            retry_on_error=list(LOST),
        )
    except ValueError as error:
        raise InvalidSettings(f"TASKYARD_REDIS_URL: {error}") from error


@contextmanager
def reachable(url: str) -> Iterator[None]:
    """Turn a lost connection inside into `ServerUnreachable` with the remedy."""
    try:
        yield
    except LOST as error:
        raise ServerUnreachable(
            "Redis",
            redact_url(url),
            error,
            "Start it, or correct TASKYARD_REDIS_URL; `taskyard check` tells when it answers.",
        ) from error
