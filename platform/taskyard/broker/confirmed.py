"""One publication to RabbitMQ that is confirmed, and an error where no queue took it.

A broker confirms an unroutable message too; only `mandatory` makes it say that nobody got it.
"""

from __future__ import annotations

from typing import Any

from kombu import Producer

from taskyard.errors import LetterUnroutable

__all__ = ["publish_confirmed"]


def publish_confirmed(producer: Producer, body: bytes, timeout_s: float, **options: Any) -> None:
    """Publish and wait at most `timeout_s`; raises `LetterUnroutable` if no queue took it."""
    returned: list[Any] = []

    def note(*details: Any) -> None:
        returned.append(details)

    events = producer.channel.events["basic_return"]
    events.add(note)
    try:
        producer.publish(
            body,
            mandatory=True,
            delivery_mode=2,
            serializer=None,
            timeout=timeout_s,
            confirm_timeout=timeout_s,
            **options,
        )
    finally:
        events.discard(note)
    if returned:
        raise LetterUnroutable(
            f"no queue takes exchange {options['exchange']!r}, key {options['routing_key']!r}"
        )
