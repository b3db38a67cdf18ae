"""Everything that a client can write into a message, one junk value in one place at a time."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import redis
from amqp.exceptions import FrameSyntaxError

from taskyard.broker import connection, is_amqp
from taskyard.settings import Settings

__all__ = ["FOLLOWER", "Case", "cases", "push"]

BY_CELERY: Final = (
    "lang", "task", "id", "root_id", "parent_id", "group", "group_index", "taskset", "meth",
    "shadow", "eta", "expires", "retries", "timelimit", "time_limit", "soft_time_limit",
    "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting",
    "stamped_headers", "stamps", "utc", "loglevel", "logfile", "headers", "properties",
    "reply_to", "correlation_id", "delivery_info", "hostname", "args", "kwargs", "callbacks",
    "errbacks", "chain", "chord", "called_directly", "is_eager", "children", "_children",
    "_protected", "get", "update", "clear", "as_execution_options", "_get_custom_headers",
    "_filter_x_death_headers", "__class__", "__dict__",
)  # fmt: skip
BY_US: Final = (
    "taskyard", "taskyard_holder", "taskyard_queue", "taskyard_attempt", "taskyard_eta",
    "taskyard_decided", "taskyard_unread",
)  # fmt: skip
BY_THE_BROKER: Final = (
    "x-death", "x-first-death-queue", "x-first-death-reason", "x-delivery-count",
    "x-acquired-count", "redelivered", "compression",
)  # fmt: skip
PROPERTIES: Final = (
    "correlation_id", "reply_to", "priority", "delivery_mode", "delivery_tag", "expiration",
    "message_id", "timestamp", "type", "user_id", "app_id", "content_type", "namespace",
)  # fmt: skip
# The server itself refuses a junk expiration, and a user that is not the connection's.
_OF_AMQP: Final = frozenset(PROPERTIES) - {"delivery_tag", "expiration", "namespace", "user_id"}
_DELIVERY: Final = ("exchange", "routing_key", "redelivered", "consumer_tag", "priority")
_STAMP: Final = ("v", "epoch", "generation", "seq", "sent_us", "policy", "holder", "namespace")
_EMBED: Final = ("callbacks", "errbacks", "chain", "chord")

# A continuation that can be published, of a task that no worker has.
FOLLOWER: Final = "follower"
_PLAIN: Final[tuple[Any, ...]] = (
    None, True, -1, 2**31, 2**70, 1.5, "", "x", "x" * 300, "a\x00b", "a\nb", "\ud800", [], ["x"],
    [[]], {"x": 1}, [{"task": FOLLOWER}],
)  # fmt: skip
_LIKE_OTHERS: Final = (True, 2**31, 1.5, "x" * 300, "a\nb", "\ud800", [], [[]])
_SOUND_STAMP: Final = {"v": 1, "epoch": 1, "generation": 0, "seq": 0}
_FUTURE_US: Final = 4_000_000_000_000_000
_SPECIAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "eta": (0, False, {}, "2001-01-01", "9999-12-31T23:59:59", "0001-01-01T00:00:00"),
    "expires": (0, False, {}, "2001-01-01", "9999-12-31T23:59:59", "0001-01-01T00:00:00"),
    "epoch": (_FUTURE_US, 2**53 - 1),
    "generation": (2**31 - 1, 2**30 - 1),
    "seq": (2**31 - 1, 2**30 - 1),
    "sent_us": (1, _FUTURE_US),
    "id": (5, "x:deliveries"),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One message; `place` is where the junk stands, by which a test names it."""

    place: str
    value: Any
    headers: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    delivery: Mapping[str, Any] = field(default_factory=dict)
    embed: Any = None

    def __str__(self) -> str:
        """The place and the start of the value."""
        return f"{self.place}={self.value!r:.40}"


def cases(*, every_value: bool) -> list[Case]:
    """Every place with every junk value, or with one of each kind."""
    made = [
        *_each("header", (*BY_CELERY, *BY_US, *BY_THE_BROKER), lambda named: {"headers": named}),
        *_each("property", PROPERTIES, lambda named: {"properties": named}),
        *_each("delivery_info", _DELIVERY, lambda named: {"delivery": named}),
        *_each("stamp", _STAMP, lambda named: {"headers": {"taskyard": _SOUND_STAMP | named}}),
        *_each("embed", _EMBED, lambda named: {"embed": named}),
    ]
    return made if every_value else [case for case in made if case.value not in _LIKE_OTHERS]


def _each(
    kind: str, names: Iterable[str], place: Callable[[dict[str, Any]], dict[str, Any]]
) -> Iterator[Case]:
    for name in names:
        for value in (*_PLAIN, *_SPECIAL.get(name, ())):
            yield Case(f"{kind} {name}", value, **place({name: value}))


Prepared = tuple[Case, Mapping[str, Any], list[Any]]


def push(settings: Settings, queue: str, messages: Iterable[Prepared]) -> list[bool]:
    """Put each case into the broker's `queue`; False where AMQP has no form for it.

    The headers are those of a sound message, under which the case's own are laid.
    """
    if is_amqp(settings):
        with connection(settings) as broker:
            channel = broker.default_channel
            return [_sent_by_amqp(channel, queue, *message) for message in messages]
    client = redis.Redis.from_url(settings.need_broker_url())
    with client, client.pipeline(transaction=False) as pipe:
        for message in messages:
            pipe.lpush(queue, _document(queue, *message))
        return [True for _ in pipe.execute()]


def _sent_by_amqp(
    channel: Any, queue: str, case: Case, headers: Mapping[str, Any], args: list[Any]
) -> bool:
    if case.delivery:
        return False  # the server says that
    known = {name: value for name, value in case.properties.items() if name in _OF_AMQP}
    if known != case.properties:
        return False
    kind = {"content_type": "application/json", "content_encoding": "utf-8", **known}
    try:
        message = channel.prepare_message(
            _body(case, args),
            kind.pop("priority", None),
            kind.pop("content_type"),
            kind.pop("content_encoding"),
            {**headers, **case.headers},
            kind,
        )
        message._serialize_properties()
        channel.basic_publish_confirm(message, exchange="", routing_key=queue, mandatory=True)
    except (FrameSyntaxError, struct.error, ValueError, TypeError, AttributeError):
        return False
    return True


def _body(case: Case, args: list[Any]) -> bytes:
    return json.dumps([args, {}, {} if case.embed is None else case.embed]).encode()


def _document(queue: str, case: Case, headers: Mapping[str, Any], args: list[Any]) -> str:
    """The case as it lies in a list of a Redis broker."""
    return json.dumps(
        {
            "body": base64.b64encode(_body(case, args)).decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {**headers, **case.headers},
            "properties": {
                "body_encoding": "base64",
                "delivery_tag": str(headers["id"]),
                "delivery_info": {"exchange": "", "routing_key": queue, **case.delivery},
                **case.properties,
            },
        }
    )
