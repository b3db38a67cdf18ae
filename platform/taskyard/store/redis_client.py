"""The Redis client: short timeouts, a limited number of retries, Taskyard's own errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from taskyard.address import RedisAddress, redis_address
from taskyard.clock import redis_time_us
from taskyard.errors import InvalidSettings, ServerRefused, ServerUnreachable, TaskyardError
from taskyard.store.lua_scripts import Script
from taskyard.wire.redaction import redact_url

__all__ = [
    "BROKER",
    "RECORDS",
    "SIGNED_OFF",
    "TRIES",
    "beat",
    "connect",
    "disown",
    "explained",
    "make_pool",
    "reachable",
    "read_beats",
    "sentinel_options",
]

LOST: Final = (RedisConnectionError, RedisTimeoutError)
RECORDS: Final = "TASKYARD_REDIS_URL"
BROKER: Final = "TASKYARD_BROKER_URL"
_SOCKET_TIMEOUT_S: Final = 5.0
TRIES: Final = 4
_OF_TCP: Final = ("socket_keepalive", "socket_keepalive_options")
SIGNED_OFF: Final = 0
"""The time of one that ended in order."""
# A field is the time of its last heartbeat in microseconds, a space, and what the living says of
# itself. It stays when its heartbeat stops, so that what it left can be found.
# KEYS: heartbeats. ARGV: name, description.
_BEAT: Final = Script("""
local time = redis.call('TIME')
local us = string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2]))
redis.call('HSET', KEYS[1], ARGV[1], us .. ' ' .. ARGV[2])
""")


def beat(client: Any, key: str, name: str, description: str) -> None:
    """Write the heartbeat of `name`; raises redis-py's errors."""
    _BEAT(client, [key], [name, description])


def read_beats(client: redis.Redis, key: str) -> tuple[int, dict[str, tuple[int, str]]]:
    """Return the server's time, and the time and description of each heartbeat by name.

    Fields that are not heartbeats are left out. Raises redis-py's errors.
    """
    with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.hgetall(key)
        now, fields = pipe.execute()
    beats = {}
    for name, value in fields.items():
        us, _, description = _text(value).partition(" ")
        if us.isdecimal():
            beats[_text(name)] = int(us), description
    return redis_time_us(now), beats


def _text(raw: bytes | str) -> str:
    return raw if isinstance(raw, str) else raw.decode("utf-8", "replace")


def connect(
    at: str | RedisAddress,
    *,
    retries: int = TRIES - 1,
    variable: str = RECORDS,
    timeout_s: float = _SOCKET_TIMEOUT_S,
) -> redis.Redis:
    """Return a client for the URL or address `at` from the setting `variable`.

    Raises `InvalidSettings` for a URL that cannot be read. Timeouts in the URL are used. Every
    script gives the same answer when it is repeated, so after a lost connection a call is retried
    `retries` times, 0.05 to 1 s apart; each try takes at most `timeout_s`.
    """
    address = _read(at, variable)
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
        # No ping before a command: redis-py would retry it within each of our retries.
        "health_check_interval": 0,
        "retry": Retry(ExponentialWithJitterBackoff(cap=1.0, base=0.05), retries),
        "retry_on_error": [*LOST, ReadOnlyError],
    }
    return redis.Redis.from_pool(make_pool(address, options))


def _read(at: str | RedisAddress, variable: str) -> RedisAddress:
    if isinstance(at, RedisAddress):
        return at
    try:
        return redis_address(at)
    except InvalidSettings as error:
        raise InvalidSettings(f"{variable}: {error}") from None


def make_pool(address: RedisAddress, options: Mapping[str, Any]) -> redis.ConnectionPool:
    """Return redis-py's pool for an address; `options` are for its connections."""
    options = {**options, "db": address.database, **address.options, **(address.tls or {})}
    if "credential_provider" not in address.options:
        options |= {"username": address.username, "password": address.password}
    if address.primary is not None:
        return _primary(address, address.primary, options)
    if address.path is not None:
        kept = {name: value for name, value in options.items() if name not in _OF_TCP}
        return redis.ConnectionPool(
            connection_class=redis.UnixDomainSocketConnection, path=address.path, **kept
        )
    ((host, port),) = address.hosts
    kind = redis.Connection if address.tls is None else redis.SSLConnection
    return redis.ConnectionPool(connection_class=kind, host=host, port=port, **options)


def sentinel_options(address: RedisAddress) -> dict[str, Any]:
    """Return redis-py's options for the connections to Sentinels.

    By default a Sentinel that does not answer is tried for 5 s before the next one is asked.
    """
    at_once = Retry(NoBackoff(), 0)
    return {"socket_timeout": _SOCKET_TIMEOUT_S, "retry": at_once, **address.sentinel}


def _primary(
    address: RedisAddress, primary: str, options: Mapping[str, Any]
) -> redis.ConnectionPool:
    """A pool of connections to the server that is the primary at the moment of connecting."""
    sentinel = Sentinel(address.hosts, sentinel_kwargs=sentinel_options(address))  # type: ignore[no-untyped-call]
    secure = address.tls is not None
    return SentinelConnectionPool(primary, sentinel, ssl=secure, **options)  # type: ignore[no-untyped-call]


def disown(client: redis.Redis) -> None:
    """Drop, in the child of a fork, a client that the parent continues to use.

    If the child's copy were garbage-collected, it would close its pool, whose lock a thread of the
    parent may have held at the fork. Dropping closes only this process' copies of the sockets.
    """
    client.auto_close_connection_pool = False


@contextmanager
def reachable(url: str, *, variable: str = RECORDS) -> Iterator[None]:
    """Convert an error of Redis in the block to `ServerUnreachable` or `ServerRefused`.

    `variable` is the setting that names `url`: the broker may be another Redis than that of the
    records.
    """
    try:
        yield
    except RedisError as error:
        raise explained(error, url, variable=variable) from error


def explained(error: RedisError, url: str, *, variable: str = RECORDS) -> TaskyardError:
    """Return Taskyard's error for an `error` of the server at `url`."""
    if not isinstance(error, LOST):
        return ServerRefused("Redis", redact_url(url), error)
    return ServerUnreachable(
        "Redis",
        redact_url(url),
        error,
        f"Start it, or correct {variable}; `taskyard check` shows when it answers.",
    )
