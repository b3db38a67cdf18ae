"""Publish messages to queues and to the delay store in Redis.

The reply of Redis confirms the publication.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import redis
from redis.exceptions import RedisError, ResponseError

from taskyard.broker.connection import check_broker_url, own_layout
from taskyard.broker.kombu_envelope import encode
from taskyard.broker.outgoing_message import Outgoing
from taskyard.broker.queue_name_and_priority import own_priority, queue_name
from taskyard.broker.redis_delay import DelayStore, delay_entry
from taskyard.broker.redis_keys import Layout
from taskyard.broker.redis_parked import ParkedMessages, parked_until_us
from taskyard.broker.republished_headers import headers_of, own_headers
from taskyard.clock import redis_time_us
from taskyard.errors import PublishFailed, Unroutable
from taskyard.queues import URGENCY_STEPS, broker_priority
from taskyard.records import Publication
from taskyard.settings import Settings
from taskyard.store import BROKER, TRIES, Argument, WrongKeyType, connect, disown, named
from taskyard.wire.letter_envelope import RawMessage
from taskyard.wire.stamp_header import Stamp

__all__ = ["RedisPublisher"]


class RedisPublisher:
    """Publishes messages to Redis byte for byte, with the stamp of the job's current position."""

    def __init__(
        self,
        settings: Settings,
        client: redis.Redis | None = None,
        layout: Layout | None = None,
    ) -> None:
        """Create a publisher; `layout` names the queues' keys.

        By default the keys are those that Taskyard's own workers read.
        """
        self.settings = settings
        self.layout = own_layout(settings) if layout is None else layout
        if client is None:
            timeout_s = settings.publish_timeout_s / TRIES
            client = connect(check_broker_url(settings), variable=BROKER, timeout_s=timeout_s)
        self.client = client
        self.delay_store = DelayStore(settings.namespace, client)
        self.parked = ParkedMessages(settings.namespace, client)

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
        """Put a message at the end of `queue`; see `Publisher.publish`."""
        key, document = self._prepare(message, queue, priority, stamp, strip)
        self._send(job_id, lambda: self.client.lpush(key, document), {key: "list"})

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
        """Put a message into the delay store until `due_us`; raises `PublishFailed`."""
        later = Outgoing(message, queue, priority, job_id, stamp, due_us)
        entry = self._waiting_entry(later, due_us)
        self._send(job_id, lambda: self.delay_store.defer(entry), self.delay_store.types)

    def park(
        self,
        message: RawMessage,
        *,
        queue: str,
        priority: int | None,
        job_id: str,
        stamp: Stamp,
        switch: str,
        until_us: int,
    ) -> None:
        """Put a message into the delay store until the switch is off; raises `PublishFailed`.

        Any worker of the namespace releases it then (`ParkedMessages.release`).
        """
        due_us = parked_until_us(self._now_us(), until_us)
        # Its age counts from the time when it comes back: it was not too old before.
        later = Outgoing(
            message, queue, priority, job_id, stamp.moved(seq=stamp.seq, sent_us=due_us), due_us
        )
        entry = self._waiting_entry(later, due_us)
        parked = self.parked
        self._send(job_id, lambda: parked.park(switch, entry), parked.types(switch))

    def _now_us(self) -> int:
        return redis_time_us(self.client.time())

    def publish_reply(self, message: RawMessage, *, queue: str, job_id: str) -> None:
        """Publish a reply to the service of a job to the list of the broker's `queue`.

        Raises `Unroutable` if that key is no list, and `PublishFailed`.
        """
        key = self.layout.key(queue, 0)
        document = encode(message, queue=queue, step=0, headers=own_headers(message))
        try:
            self.client.lpush(key, document)
        except RedisError as error:
            cause = self._cause(error, {key: "list"})
            kind = Unroutable if isinstance(cause, WrongKeyType) else PublishFailed
            raise kind(f"the reply about job {job_id} was not published: {cause}") from error

    def publish_many(self, messages: Sequence[Outgoing]) -> list[PublishFailed | None]:
        """Publish all messages in one round trip.

        Returns an error for each message that Redis has not confirmed.
        """
        with self.client.pipeline(transaction=False) as pipe:
            self.delay_store.load(pipe)
            types = [self._queue(pipe, one) for one in messages]
            try:
                answers = pipe.execute(raise_on_error=False)[1:]
            except RedisError as error:
                answers = [error] * len(messages)
        return [
            self._failed(one.job_id, answer, expected) if isinstance(answer, RedisError) else None
            for one, answer, expected in zip(messages, answers, types, strict=True)
        ]

    def place(self, queue: str, priority: int) -> tuple[str, int]:
        """Return the broker's name of `queue`, and the priority step of `priority`."""
        return self.settings.broker_name(queue), self._step(queue, priority)

    def publication(
        self, place: tuple[str, int], text: tuple[str, str], delay_s: float
    ) -> Publication:
        """Return what the admission script pushes for a new job.

        The script inserts the job's epoch between the two texts.
        """
        store = self.delay_store
        return Publication(
            self.layout.key(*place), *text, store.due_key, store.messages_key, delay_s
        )

    def _prepare(
        self,
        message: RawMessage,
        queue: str,
        priority: int | None,
        stamp: Stamp,
        strip: Iterable[str],
    ) -> tuple[str, str]:
        """Return the key of the queue's list and the document to push."""
        name = queue_name(self.settings, queue)
        known = queue in self.settings.queues
        step = self._step(queue, priority) if known else self._own_step(message)
        headers = headers_of(message, stamp, strip)
        document = encode(message, queue=name, step=step, headers=headers)
        return self.layout.key(name, step), document

    def close(self) -> None:
        """Close the connection to Redis."""
        self.client.close()

    def disown(self) -> None:
        """Drop the parent's connection in the child of a fork; the publisher is unusable then."""
        disown(self.client)

    def _queue(self, pipe: Any, one: Outgoing) -> dict[str, str]:
        """Append one message to a pipeline; return the keys that it needs and their types."""
        if one.due_us is not None:
            self.delay_store.queue(pipe, self._waiting_entry(one, one.due_us))
            return self.delay_store.types
        key, document = self._prepare(one.message, one.queue, one.priority, one.stamp, one.strip)
        pipe.lpush(key, document)
        return {key: "list"}

    def _waiting_entry(self, one: Outgoing, due_us: int) -> Sequence[Argument]:
        """Return the arguments of the script that puts a message into the delay store."""
        key, document = self._prepare(one.message, one.queue, one.priority, one.stamp, ("eta",))
        return delay_entry(one.job_id, one.stamp, due_us, key, document)

    def _own_step(self, message: RawMessage) -> int:
        return max(step for step in URGENCY_STEPS if step <= own_priority(message))

    def _step(self, queue: str, priority: int | None) -> int:
        configured = self.settings.queue(queue)
        return broker_priority(
            configured, configured.default_priority if priority is None else priority
        )

    def _send(self, job_id: str, command: Any, types: Mapping[str, str]) -> None:
        try:
            command()
        except RedisError as error:
            raise self._failed(job_id, error, types) from error

    def _failed(self, job_id: str, error: RedisError, types: Mapping[str, str]) -> PublishFailed:
        failure = PublishFailed(f"job {job_id} was not published: {self._cause(error, types)}")
        failure.__cause__ = error
        return failure

    def _cause(self, error: RedisError, types: Mapping[str, str]) -> Exception:
        return named(self.client, error, types) if isinstance(error, ResponseError) else error
