"""The Redis client: short timeouts, bounded retries, errors in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.sentinel import Sentinel

from taskyard.errors import InvalidSettings, ServerRefused, ServerUnreachable, TaskyardError
from taskyard.store.address import SentinelAddress, sentinel_address
from taskyard.wire.redaction import redact_url

__all__ = ["BROKER", "LOST", "RECORDS", "TRIES", "connect", "disown", "explained", "reachable"]

LOST: Final = (RedisConnectionError, RedisTimeoutError)
RECORDS: Final = "TASKYARD_REDIS_URL"
BROKER: Final = "TASKYARD_BROKER_URL"
_SOCKET_TIMEOUT_S: Final = 5.0
TRIES: Final = 4


def connect(
    url: str,
    *,
    retries: int = TRIES - 1,
    variable: str = RECORDS,
    timeout_s: float = _SOCKET_TIMEOUT_S,
) -> redis.Redis:
    """A client for `url`, which `variable` names; nothing is sent yet.

    Raises `InvalidSettings` for a URL it cannot read.

    Every script here answers the same when it is asked twice, so a lost connection is retried
    `retries` times, 0.05 to 1 s apart; each try takes at most `timeout_s`.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
        # No ping before a command: redis-py would retry it inside of each of our retries.
        "health_check_interval": 0,
        "retry": Retry(ExponentialWithJitterBackoff(cap=1.0, base=0.05), retries),
        "retry_on_error": [*LOST, ReadOnlyError],
    }
    try:
        address = sentinel_address(url)
    except InvalidSettings as error:
        raise InvalidSettings(f"{variable}: {error}") from None
    if address is not None:
        return _primary(address, options)
    try:
        return redis.Redis.from_url(url, **options)
    except ValueError:
        # redis-py's own words would quote a part of the password.
        raise InvalidSettings(
            f"{variable}: expected redis://host:port/database, with user:password@ before the host "
            "where it has them and special characters of the password percent-encoded, "
            f"got {redact_url(url)}"
        ) from None


def _primary(address: SentinelAddress, options: dict[str, Any]) -> redis.Redis:
    """A client of whatever server is the primary when it connects."""
    options_of_nodes = {"socket_timeout": _SOCKET_TIMEOUT_S}
    sentinel = Sentinel(address.hosts, sentinel_kwargs=options_of_nodes)  # type: ignore[no-untyped-call]
    client: redis.Redis = sentinel.master_for(  # type: ignore[no-untyped-call]
        address.primary,
        db=address.database,
        username=address.username,
        password=address.password,
        **options,
    )
    return client


def disown(client: redis.Redis) -> None:
    """Let go, in the child of a fork, of a client that the parent goes on using.

    Collected as it is, it would close its pool, whose lock a thread of the parent may have held
    when it forked. Its connections close this process' copies of their sockets alone.
    """
    client.auto_close_connection_pool = False


@contextmanager
def reachable(url: str, *, variable: str = RECORDS) -> Iterator[None]:
    """Turn an error of Redis inside into `ServerUnreachable` or `ServerRefused`.

    `variable` is the setting that names `url`: the broker may be another Redis than the records'.
    """
    try:
        yield
    except RedisError as error:
        raise explained(error, url, variable=variable) from error


def explained(error: RedisError, url: str, *, variable: str = RECORDS) -> TaskyardError:
    """The error of ours that says what `error` means for the server at `url`."""
    if not isinstance(error, LOST):
        return ServerRefused("Redis", redact_url(url), error)
    return ServerUnreachable(
        "Redis",
        redact_url(url),
        error,
        f"Start it, or correct {variable}; `taskyard check` tells when it answers.",
    )
