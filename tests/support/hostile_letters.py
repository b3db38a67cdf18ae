"""What anybody may put into the letters' queue: drops and letters with junk in one place each."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from typing import Any

from support.letters import make_delivery, make_letter
from taskyard.mirror import Delivery

__all__ = ["NOW", "changed_letters", "drops"]

NOW = datetime(2026, 1, 1, tzinfo=UTC)
JUNK: tuple[Any, ...] = (
    None, True, -1, 2**70, 1.5, "", "x", "x" * 300, "a\x00b", "\ud800", b"\xff", [], [{}], [[]],
    {}, {"v": 1}, datetime(1, 1, 1), datetime(9999, 12, 31, tzinfo=UTC),  # noqa: DTZ001 - as AMQP has it
)  # fmt: skip
HEADERS = ("id", "task", "taskyard", "x-death", "x-first-death-reason", "compression")
PROPERTIES = ("priority", "reply_to", "correlation_id", "message_id", "timestamp")
DEATH = ("reason", "queue", "time", "count", "exchange", "routing-keys")
FIELDS = tuple(json.loads(make_letter().encode()))


def drop(headers: dict[str, Any], properties: dict[str, Any], death: dict[str, Any]) -> Delivery:
    sound = {"reason": "expired", "queue": "plan", "time": NOW}
    given = {"id": "j", "task": "t", "x-death": [{**sound, **death}], **headers}
    return Delivery(b"[[], {}, {}]", given, properties)


def drops() -> list[Delivery]:
    return [
        *(drop({name: value}, {}, {}) for name, value in itertools.product(HEADERS, JUNK)),
        *(drop({}, {name: value}, {}) for name, value in itertools.product(PROPERTIES, JUNK)),
        *(drop({}, {}, {name: value}) for name, value in itertools.product(DEATH, JUNK)),
    ]


def changed_letters() -> list[Delivery]:
    whole = json.loads(make_letter().encode())
    plain = [value for value in JUNK if not isinstance(value, bytes | datetime)]
    return [
        make_delivery(json.dumps({**whole, name: value}).encode())
        for name, value in itertools.product(FIELDS, plain)
    ]
