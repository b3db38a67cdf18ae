"""Publishing to RabbitMQ: confirmed and mandatory; waiting in its delay exchanges."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from math import ceil
from typing import Any, Final

from kombu.exceptions import OperationalError
from kombu.transport.native_delayed_delivery import calculate_routing_key, level_name

from taskyard.broker.confirmed import publish_confirmed
from taskyard.broker.delay_exchanges import (
    bind_delay,
    declare_delay,
    delay_prefix,
    delay_type,
    waits_apart,
)
from taskyard.broker.foreign import own_priority, queue_name
from taskyard.broker.headers import headers_of, own_headers
from taskyard.broker.own_connection import OwnConnection
from taskyard.clock import to_us
from taskyard.errors import PublishFailed, Unroutable
from taskyard.queues import rabbit_priority, rabbit_queues
from taskyard.settings import Settings
from taskyard.wire.exact import unpack
from taskyard.wire.headers import Stamp
from taskyard.wire.letters import RawMessage

__all__ = ["AmqpPublisher"]

# The highest of the delay exchanges: 2^27 s are four years.
_TOP_LEVEL: Final = 27
_OWN_PROPERTIES: Final = frozenset(
    {"correlation_id", "reply_to", "message_id", "timestamp", "type", "user_id", "app_id"}
)


class AmqpPublisher:
    """One connection, shared by threads one at a time, and made anew when it breaks."""

    def __init__(self, settings: Settings, now_us: Callable[[], int] | None = None) -> None:
        self.settings = settings
        self._now_us = _own_clock_us if now_us is None else now_us
        self._lock = threading.RLock()
        self._own = OwnConnection(settings, self._prepare)
        self._delays: set[str] = set()
        self._bound: set[tuple[str, str]] = set()

    def publish(
        self,
        message: RawMessage,
        *,
        queue: str,
        priority: int | None,
        job_id: str,
        stamp: Stamp,
        strip: Iterable[str] = (),
    ) -> None:
        """Put a message into `queue`; raises `PublishFailed`."""
        name = queue_name(self.settings, queue)
        options = self._options(message, queue, priority, stamp, strip)
        self._send(job_id, message.body, {"exchange": "", "routing_key": name, **options})

    def publish_later(
        self,
        message: RawMessage,
        *,
        queue: str,
        priority: int | None,
        job_id: str,
        stamp: Stamp,
        due_us: int,
    ) -> None:
        """Put a message into the delay exchanges, in whole seconds; raises `PublishFailed`."""
        seconds = max(1, ceil((due_us - self._now_us()) / 1_000_000))
        options = self._options(message, queue, priority, stamp, ("eta",))
        key = calculate_routing_key(seconds, queue_name(self.settings, queue))
        self._send(job_id, message.body, {"routing_key": key, **options}, delayed=queue)

    def renew(self, message: RawMessage, *, job_id: str, queue: str) -> None:
        """Publish a message as it is to the end of the broker's `queue`; raises `PublishFailed`."""
        options = self._own_options(message, own_headers(message))
        options["priority"] = _given_priority(message)
        self._send(job_id, message.body, {"exchange": "", "routing_key": queue, **options})

    def close(self) -> None:
        """Let the connection go."""
        with self._lock:
            self._own.close()

    def _options(
        self,
        message: RawMessage,
        queue: str,
        priority: int | None,
        stamp: Stamp,
        strip: Iterable[str],
    ) -> dict[str, Any]:
        options = self._own_options(message, headers_of(message, stamp, strip))
        return {**options, "priority": self._priority(message, queue, priority)}

    def _own_options(self, message: RawMessage, headers: dict[str, Any]) -> dict[str, Any]:
        own = {k: unpack(v) for k, v in message.properties.items() if k in _OWN_PROPERTIES}
        return {
            **own,
            "headers": headers,
            "content_type": message.content_type or "application/data",
            "content_encoding": message.content_encoding or "binary",
        }

    def _send(
        self, job_id: str, body: bytes, options: dict[str, Any], *, delayed: str | None = None
    ) -> None:
        with self._lock:
            reused = self._own.is_open
            try:
                self._send_once(body, options, delayed)
            except Unroutable:
                raise
            except self._own.errors() as error:
                self._own.abandon()
                if not reused or isinstance(error, OperationalError):
                    raise PublishFailed(f"job {job_id} was not published: {error}") from error
                # The server left while nobody looked; a second message of a job changes nothing.
                self._send(job_id, body, options, delayed=delayed)

    def _send_once(self, body: bytes, options: dict[str, Any], delayed: str | None) -> None:
        producer = self._own.producer()
        if delayed is not None:
            entry = self._prepare_delay(producer.channel, delayed, options["priority"])
            options = {"exchange": entry, **options}
        publish_confirmed(producer, body, self.settings.publish_timeout_s, **options)

    def _priority(self, message: RawMessage, queue: str, priority: int | None) -> int | None:
        configured = self.settings.queues.get(queue)
        if configured is None:
            return _given_priority(message)
        wanted = configured.default_priority if priority is None else priority
        return rabbit_priority(configured, wanted)

    def _prepare_delay(self, channel: Any, queue: str, priority: int | None) -> str:
        """The exchange where a wait for `queue` begins, declared and bound."""
        properties = channel.connection.server_properties
        kind, apart = delay_type(properties), waits_apart(properties, priority)
        prefix = delay_prefix(self.settings, kind, apart=apart)
        if prefix not in self._delays:
            declare_delay(channel, self.settings, kind, prefix)
            self._delays.add(prefix)
        if queue not in self.settings.queues and (prefix, queue) not in self._bound:
            bind_delay(channel, prefix, queue)
            self._bound.add((prefix, queue))
        return str(level_name(_TOP_LEVEL, prefix))

    def _prepare(self, channel: Any) -> None:
        """Declare the work queues; what waits is declared when something has to wait."""
        self._delays.clear()
        self._bound.clear()
        for queue in rabbit_queues(self.settings):
            queue(channel).declare()


def _given_priority(message: RawMessage) -> int | None:
    # Absent is not 0: a quorum queue of RabbitMQ 4.3 takes it for 4.
    return own_priority(message) if "priority" in message.properties else None


def _own_clock_us() -> int:
    return to_us(datetime.now(UTC))
