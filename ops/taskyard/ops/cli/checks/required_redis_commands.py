"""The commands that the user of a Redis must be allowed to run, ready to be tried."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from taskyard.address import redis_address
from taskyard.broker import own_layout
from taskyard.deadletters import exchange, mirror_queue
from taskyard.records import Keys
from taskyard.settings import Settings

__all__ = ["Need", "of_broker", "of_records"]

# No job has such an id, and no queue has such a name.
_NONE = "check"


@dataclass(frozen=True, slots=True)
class Need:
    """One command; `names` is the pattern of its key or channel, empty if it has none."""

    words: tuple[str | int, ...]
    names: str = ""

    @property
    def command(self) -> str:
        """The command's name in an ACL."""
        first, second = str(self.words[0]).lower(), str(self.words[1:2] and self.words[1]).lower()
        return f"{first}|{second}" if first in _WITH_SUBCOMMANDS else first


_WITH_SUBCOMMANDS = {"client", "script", "xgroup", "xinfo"}


def of_records(settings: Settings) -> Iterator[Need]:
    """Yield what clients, workers, mirror, relay and operators need at the records' Redis."""
    space, keys = settings.namespace, Keys(settings.namespace)
    yield from _scripts()
    yield from _hash(keys.record(_NONE), keys.record("*"))
    record = keys.record(_NONE)
    for words in (
        ("hmget", record, "f"),
        ("exists", record),
        ("persist", record),
        ("type", record),
    ):
        yield Need(words, keys.record("*"))
    yield Need(("pexpire", record, 1), keys.record("*"))
    yield Need(("incr", f"{record}:deliveries"), keys.record("*"))
    yield Need(("setrange", f"{record}:deliveries", 0, ""), keys.record("*"))
    yield from _stream(keys.lifecycle)
    yield Need(("hincrby", keys.gaps, "f", 1), keys.gaps)
    yield from _hash(keys.switches, f"{keys.switches}*")
    yield Need(("hmget", keys.switches, "f"), f"{keys.switches}*")
    result = f"{keys.prefix}celery-task-meta-"
    yield from _string(f"{result}{_NONE}", f"{result}*")
    yield Need(("publish", f"{result}{_NONE}", ""), f"{result}*")
    yield Need(("subscribe", f"{result}{_NONE}"), f"{result}*")
    yield from _string(f"{space}:gate", f"{space}:gate")
    yield Need(("xadd", f"{space}:letters:kept", "*", "f", "v"), f"{space}:letters:kept")
    yield Need(("xrange", f"{space}:letters:kept", "-", "+"), f"{space}:letters:kept")
    yield from _set(f"{space}:letters:prefixes", f"{space}:letters:prefixes")
    yield from _hash(f"{space}:places", f"{space}:places")
    yield from _operators(space)
    if settings.replicas:
        yield Need(("wait", 0, 1))
        yield from _string(f"{space}:replicated", f"{space}:replicated")


def _operators(space: str) -> Iterator[Need]:
    """Yield what operators' verbs, switches and control commands need."""
    stops = f"{space}:stops:{_NONE}"
    for words in (("rpush", stops, ""), ("blpop", stops, 1), ("expire", stops, 1)):
        yield Need(words, f"{space}:stops:*")
    yield from _string(f"{space}:stopped:{_NONE}", f"{space}:stopped:*")
    yield from _string(f"{space}:broadcast:{_NONE}", f"{space}:broadcast:*")
    yield from _hash(f"{space}:broadcasts:denied:{_NONE}", f"{space}:broadcasts:denied:*")
    command = f"{space}:command:{_NONE}"
    yield from _hash(command, f"{space}:command:*")
    yield Need(("hexists", command, "f"), f"{space}:command:*")
    yield from _hash(f"{space}:workers", f"{space}:workers")
    yield from _string(f"{space}:switches:form:{_NONE}", f"{space}:switches*")


def of_broker(settings: Settings) -> Iterator[Need]:
    """Yield what clients, workers, mirror, relay and operators need at a Redis broker."""
    space, layout = settings.namespace, own_layout(settings)
    prefix = layout.prefix
    yield from _scripts()
    yield Need(("client", "tracking", "on", "noloop"))
    yield Need(("scan", 0))
    queues = [settings.broker_name(name) for name in settings.queues]
    for queue in (*queues, mirror_queue(settings).name):
        for step in layout.steps:
            yield from _list(layout.key(queue, step), f"{prefix}{queue}*")
    yield from _hash(layout.unacked_key, layout.unacked_key)
    yield from _sorted(f"{prefix}unacked_index", f"{prefix}unacked_index")
    mutex = f"{prefix}unacked_mutex"
    yield Need(("set", mutex, 1), mutex)
    yield Need(("pttl", mutex), mutex)
    yield from _hash(f"{space}:heartbeats", f"{space}:heartbeats")
    yield Need(("hsetnx", f"{space}:heartbeats", "f", "v"), f"{space}:heartbeats")
    yield from _sorted(f"{space}:delayed", f"{space}:delayed*")
    yield from _hash(f"{space}:delayed:messages", f"{space}:delayed*")
    yield Need(("hmget", f"{space}:delayed:messages", "f"), f"{space}:delayed*")
    yield from _set(f"{space}:delayed:parked", f"{space}:delayed*")
    yield from _string(f"{space}:broker", f"{space}:broker")
    bindings = f"{prefix}_kombu.binding*"
    for kind in ("binding", "binding_permanent"):
        yield from _set(f"{prefix}_kombu.{kind}.{exchange(settings).name}", bindings)
    yield from _control(settings, prefix)


def _control(settings: Settings, prefix: str) -> Iterator[Need]:
    """Yield what remote control and events of Celery's workers need."""
    control, events = (settings.broker_name(name) for name in ("celery", "celeryev"))
    mailbox = f"{prefix}worker@{_NONE}.{control}.pidbox"
    yield from _list(mailbox, f"{prefix}*{control}.pidbox*")
    yield from _list(f"{prefix}{events}.{_NONE}", f"{prefix}{events}*")
    database = redis_address(settings.need_broker_url()).database
    channel = f"{prefix}/{database}.{control}.pidbox"
    yield Need(("publish", channel, ""), channel)
    # For a subscription to a pattern, the ACL must contain exactly this pattern.
    yield Need(("psubscribe", channel), channel)
    events_channel = f"{prefix}/{database}.{events}/"
    yield Need(("publish", f"{events_channel}worker.online", ""), f"{events_channel}*")
    yield Need(("psubscribe", f"{events_channel}worker.*"), f"{events_channel}worker.*")


def _scripts() -> Iterator[Need]:
    yield Need(("script", "load", "return 1"))
    yield Need(("eval", "return 1", 0))
    yield Need(("evalsha", "0" * 40, 0))
    yield Need(("time",))


def _each(names: str, *commands: tuple[str | int, ...]) -> Iterator[Need]:
    for words in commands:
        yield Need(words, names)


def _hash(key: str, names: str) -> Iterator[Need]:
    yield from _each(names, ("hset", key, "f", "v"), ("hdel", key, "f"), ("hget", key, "f"))
    yield from _each(names, ("hgetall", key), ("hlen", key), ("hscan", key, 0), ("del", key))


def _sorted(key: str, names: str) -> Iterator[Need]:
    yield from _each(names, ("zadd", key, 1, "m"), ("zrangebyscore", key, 0, 1))
    yield from _each(names, ("zrange", key, 0, 1), ("zscan", key, 0), ("zrem", key, "m"))
    yield from _each(names, ("zscore", key, "m"), ("zcard", key))


def _list(key: str, names: str) -> Iterator[Need]:
    yield from _each(names, ("lpush", key, "v"), ("rpush", key, "v"), ("rpop", key), ("llen", key))
    yield from _each(names, ("lrange", key, 0, 1), ("ltrim", key, 0, 1), ("del", key))
    yield from _each(names, ("lrem", key, 1, "v"))


def _set(key: str, names: str) -> Iterator[Need]:
    yield from _each(names, ("sadd", key, "m"), ("srem", key, "m"), ("smembers", key))


def _string(key: str, names: str) -> Iterator[Need]:
    yield from _each(names, ("set", key, "v"), ("get", key), ("del", key))


def _stream(key: str) -> Iterator[Need]:
    yield from _each(
        key,
        ("xadd", key, "*", "f", "v"),
        ("xgroup", "create", key, "mirror", 0),
        ("xgroup", "delconsumer", key, "mirror", "c"),
        ("xreadgroup", "group", "mirror", "c", "streams", key, ">"),
        ("xautoclaim", key, "mirror", "c", 1, 0),
        ("xinfo", "consumers", key, "mirror"),
        ("xack", key, "mirror", "0-1"),
        ("xdel", key, "0-1"),
        ("xrange", key, "-", "+"),
        ("xlen", key),
    )
