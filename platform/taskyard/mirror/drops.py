"""What RabbitMQ itself drops: the task's own message, with the header `x-death` that says why.

See https://www.rabbitmq.com/docs/dlx#effects.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from taskyard.clock import to_us
from taskyard.deadletters import shown_arguments
from taskyard.jobs import Category
from taskyard.jobs.replay_rules import replay_eligible
from taskyard.mirror.deliveries import Delivery
from taskyard.wire import Letter, RawMessage, Stamp, letter_id, pack

__all__ = ["is_drop", "letter_of_drop"]

_CATEGORIES: Final = {"expired": Category.EXPIRED, "delivery_limit": Category.POISON}
_DEATH_HEADERS: Final = ("x-death", "x-first-death-", "x-last-death-")


def is_drop(delivery: Delivery) -> bool:
    """Whether the broker put this message here, and not a worker."""
    deaths = delivery.headers.get("x-death")
    if not isinstance(deaths, list) or not deaths or not isinstance(deaths[0], Mapping):
        return False
    return "task" in delivery.headers


def letter_of_drop(delivery: Delivery) -> Letter:
    """The letter that nobody could write; raises ValueError where a header is not as expected."""
    headers = delivery.headers
    death = headers["x-death"][0]
    reason, at_us = str(death.get("reason")), _time_us(death)
    stamp = Stamp.read(headers) or Stamp(epoch=0)
    job_id = str(headers.get("id") or delivery.properties.get("correlation_id") or "")
    category = _CATEGORIES.get(reason, Category.REJECTED)
    message = _message(delivery)
    args, kwargs = shown_arguments(message)
    return Letter(
        letter_id=letter_id(job_id, stamp.epoch, stamp.generation),
        job_id=job_id,
        epoch=stamp.epoch,
        generation=stamp.generation,
        version=0,
        job_type=str(headers["task"]),
        queue=str(death.get("queue", "")),
        priority=delivery.properties.get("priority"),
        message=message,
        args=args,
        kwargs=kwargs,
        reply_to=delivery.properties.get("reply_to"),
        category=category,
        code=reason,
        error_class="BrokerDrop",
        error_message=f"the broker dropped the message from {death.get('queue')!r}: {reason}",
        first_failure_us=at_us,
        last_failure_us=at_us,
        replay_eligible=replay_eligible(category),
        evidence={"x-death": _plain(headers["x-death"])},
    )


def _time_us(death: Mapping[str, Any]) -> int:
    moment = death.get("time")
    if not isinstance(moment, datetime):
        raise ValueError(f"x-death has no time, got {moment!r}")
    return to_us(moment)


def _message(delivery: Delivery) -> RawMessage:
    kept = {
        name: value
        for name, value in delivery.headers.items()
        if not name.startswith(_DEATH_HEADERS)
    }
    return RawMessage(
        body=delivery.body,
        headers=_plain(kept),
        properties=_plain(dict(delivery.properties)),
        content_type=delivery.content_type,
        content_encoding=delivery.content_encoding,
    )


def _plain(value: Any) -> Any:
    """`value` as plain JSON that loses nothing."""
    return pack(value)
