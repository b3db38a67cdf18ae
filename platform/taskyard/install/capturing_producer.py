"""A producer that keeps a message instead of publishing it."""

from __future__ import annotations

from typing import Any, Final

from kombu import Producer

from taskyard.engine.queue_routes import queue_named
from taskyard.engine.retry_message import NextMessage
from taskyard.engine.source_queue import HOLDER, QUEUE
from taskyard.install.attribute_names import ETA
from taskyard.wire.letter_envelope import RawMessage
from taskyard.wire.lossless_json import pack
from taskyard.wire.stamp_header import HEADER

__all__ = ["CapturingProducer"]

# Fields of one delivery that must not be in the next message.
_OURS: Final = frozenset({HOLDER, HEADER, QUEUE, ETA})


class CapturingProducer(Producer):  # type: ignore[misc]
    """Serializes and compresses a message as the app's own producer does, and keeps it.

    It connects only to declare a queue.
    """

    def __init__(self, app: Any, queue: str) -> None:
        super().__init__(None, serializer=app.conf.task_serializer, auto_declare=False)
        self._app, self._queue = app, queue
        self.caught: NextMessage | None = None

    @property
    def connection(self) -> Any:
        """Return an unopened connection, which Celery needs for the text of its errors."""
        return self._app.connection_for_write()

    def publish(self, *args: Any, **options: Any) -> Any:
        """Keep the first message, as `Producer.publish` builds it; a later message is an event."""
        if self.caught is None:
            return super().publish(*args, **{**options, "retry": False})
        with self._app.producer_pool.acquire(block=True) as producer:
            return producer.publish(*args, **options)

    def _publish(
        self,
        body: Any,
        priority: int | None,
        content_type: str,
        content_encoding: str,
        headers: dict[str, Any],
        properties: dict[str, Any],
        routing_key: str,
        mandatory: bool,
        immediate: bool,
        exchange: str,
        declare: list[Any],
        *_: Any,
        **__: Any,
    ) -> None:
        queue = queue_named(self._app, exchange or "", routing_key, self._queue)
        if queue != self._queue:
            self._declare(declare)
        message = RawMessage(
            body=body.encode() if isinstance(body, str) else bytes(body),
            headers={k: pack(v) for k, v in headers.items() if k not in _OURS},
            properties={k: pack(v) for k, v in {**properties, "priority": priority}.items()},
            content_type=content_type,
            content_encoding=content_encoding,
        )
        self.caught = NextMessage(queue=queue, message=message)

    def _declare(self, entities: list[Any]) -> None:
        with self._app.connection_for_write() as connection:
            for entity in entities:
                entity(connection.default_channel).declare()
