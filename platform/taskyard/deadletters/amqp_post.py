"""Letters by RabbitMQ: each is published mandatory, and the server confirms it."""

from __future__ import annotations

from typing import Any, Final

from kombu import Producer

from taskyard.broker.confirmed import publish_confirmed
from taskyard.deadletters.post import JSON, REVIEW_LIMIT
from taskyard.deadletters.topology import exchange, mirror_queue, review_queue
from taskyard.settings import Settings
from taskyard.wire.letters import Letter

__all__ = ["AmqpPost"]

# RabbitMQ 4 takes messages of 16 MiB at most. A letter holds the job's, which it took, as base64
# and its arguments once more; kombu tells in a header that a body is compressed, and undoes it.
_COMPRESSED_OVER_BYTES: Final = 8 * 1024 * 1024


class AmqpPost:
    """Waits at most `publish_timeout_s` for each confirmation."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._exchange, self._queue = exchange(settings).name, mirror_queue(settings)

    def prepare(self, channel: Any) -> None:
        """Declare the mirror's queue and its binding."""
        self._queue(channel).declare()

    def send(self, producer: Producer, letter: Letter) -> None:
        """Publish the letter; raises `Unroutable`, or an error of the client."""
        body = letter.encode()
        self._publish(producer, body, exchange=self._exchange, routing_key=letter.routing_key())
        if letter.escalate_to is not None:
            review = review_queue(self._settings, letter.escalate_to, REVIEW_LIMIT)
            review(producer.channel).declare()
            self._publish(producer, body, exchange="", routing_key=review.name)

    def _publish(self, producer: Producer, body: bytes, **route: str) -> None:
        options: dict[str, Any] = {**route, **JSON}
        if len(body) > _COMPRESSED_OVER_BYTES:
            options["compression"] = "zlib"
        publish_confirmed(producer, body, self._settings.publish_timeout_s, **options)
