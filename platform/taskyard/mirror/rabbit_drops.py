"""Messages that RabbitMQ itself dropped: a task's message with the cause in its header `x-death`.

See https://www.rabbitmq.com/docs/dlx#effects.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from taskyard.clock import to_us
from taskyard.deadletters import shown_arguments
from taskyard.jobs import Category
from taskyard.jobs.replay_by_category import replay_eligible
from taskyard.mirror.delivery_port import Delivery
from taskyard.wire import Letter, RawMessage, Stamp, letter_id, pack
from taskyard.wire.credential_argument import without_credential
from taskyard.wire.letter_envelope import LETTER_NAMESPACE, REPEATED
from taskyard.wire.stamp_header import usable_id

__all__ = ["is_drop", "letter_of_drop"]

_CATEGORIES: Final = {"expired": Category.EXPIRED, "delivery_limit": Category.POISON}
_DEATH_HEADERS: Final = ("x-death", "x-first-death-", "x-last-death-")


def is_drop(delivery: Delivery) -> bool:
    """Return whether the broker put this message into the queue, not a worker."""
    deaths = delivery.headers.get("x-death")
    if not isinstance(deaths, list) or not deaths or not isinstance(deaths[0], Mapping):
        return False
    return "task" in delivery.headers


def letter_of_drop(delivery: Delivery) -> Letter:
    """Build the dead letter of a dropped message; raises ValueError for an unexpected header."""
    headers = delivery.headers
    death = headers["x-death"][0]
    reason, at_us = str(death.get("reason")), _time_us(death)
    stamp, known = Stamp.read(headers), _job_id(delivery)
    job_id, job_type = known or str(delivery.own_id), str(headers["task"])
    repeated = known is None and delivery.delivered_before
    category = _CATEGORIES.get(reason, Category.REJECTED)
    message = without_credential(_message(delivery))
    args, kwargs = shown_arguments(message)
    return Letter(
        letter_id=_letter_id(job_id, stamp, job_type, at_us),
        job_id=job_id,
        epoch=0 if stamp is None else stamp.epoch,
        generation=0 if stamp is None else stamp.generation,
        version=0,
        job_type=job_type,
        queue=str(death.get("queue", "")),
        priority=delivery.properties.get("priority"),
        message=message,
        args=args,
        kwargs=kwargs,
        reply_to=delivery.properties.get("reply_to"),
        category=category,
        code=reason,
        error_class="BrokerDrop",
        error_message=f"the broker dropped the message from {death.get('queue')!r}: {reason}"
        + (REPEATED if repeated else ""),
        first_failure_us=at_us,
        last_failure_us=at_us,
        replay_eligible=replay_eligible(category),
        evidence={
            "x-death": _plain(headers["x-death"]),
            **({"possibly_repeated": True} if repeated else {}),
        },
    )


def _job_id(delivery: Delivery) -> str | None:
    found = usable_id(delivery.headers.get("id"))
    return found or usable_id(delivery.properties.get("correlation_id"))


def _letter_id(job_id: str, stamp: Stamp | None, job_type: str, at_us: int) -> str:
    """Return a dead letter's id.

    For a message without a stamp, the id is computed from the message's id, task and time.
    """
    if stamp is not None:
        return letter_id(job_id, stamp.epoch, stamp.generation)
    return str(uuid.uuid5(LETTER_NAMESPACE, f"{job_id}:{job_type}:{at_us}"))


def _time_us(death: Mapping[str, Any]) -> int:
    moment = death.get("time")
    if not isinstance(moment, datetime):
        raise ValueError(f"the header x-death must have a timestamp 'time', got {moment!r:.60}")
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
    """Return `value` as plain JSON without loss."""
    return pack(value)
