"""Publish messages to queues and to the delay store in Redis.

The reply of Redis confirms the publication.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import Any, Final

import redis
from redis.exceptions import RedisError, ResponseError

from taskyard.broker.app_queues import own_priority, queue_name
from taskyard.broker.connection import check_broker_url, own_layout
from taskyard.broker.kombu_envelope import encode
from taskyard.broker.outgoing_message import Outgoing
from taskyard.broker.redis_keys import Layout
from taskyard.broker.republished_headers import headers_of
from taskyard.errors import PublishFailed
from taskyard.queues import URGENCY_STEPS, broker_priority
from taskyard.records import Publication
from taskyard.settings import Settings
from taskyard.store import BROKER, TRIES, Argument, Script, connect, disown, named
from taskyard.wire.lasting_failures import Refusals
from taskyard.wire.letter_envelope import RawMessage
from taskyard.wire.stamp_header import Stamp

__all__ = ["PROMOTE_BATCH", "RedisPublisher"]

# One batch must not block the server: 100 moves take well under a millisecond.
PROMOTE_BATCH: Final = 100
# How long a message whose key has another type waits before the next try.
_ODD_LIST_WAIT_MS: Final = 5_000
_ODD_LIST_OVER_S: Final = 15.0


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
        self._delayed = f"{settings.namespace}:delayed"
        self._messages = f"{settings.namespace}:delayed:messages"
        self._defer, self._promote = (
            Script.of("taskyard.broker", name) for name in ("defer", "promote")
        )
        self._refusals = Refusals()
        self._odd: dict[str, float] = {}

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
        """Put a message at the end of `queue` (configured name); `priority` is the caller's.

        `strip` names headers to clear (`expires`, `eta`). Raises `PublishFailed`.
        """
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
        types, arguments = self._delay_types, self._waiting_entry(later, due_us)
        self._send(job_id, lambda: self._defer(self.client, list(types), arguments), types)

    def publish_many(self, messages: Sequence[Outgoing]) -> list[PublishFailed | None]:
        """Publish all messages in one round trip.

        Returns an error for each message that Redis has not confirmed.
        """
        with self.client.pipeline(transaction=False) as pipe:
            self._defer.queue_load(pipe)
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
        return Publication(self.layout.key(*place), *text, self._delayed, self._messages, delay_s)

    def promote(self, batch: int = PROMOTE_BATCH) -> int:
        """Move at most `batch` due messages to their queues; return how many were due."""
        types = self._delay_types
        try:
            due, *odd = self._promote(self.client, list(types), [batch, _ODD_LIST_WAIT_MS])
        except ResponseError as error:
            raise named(self.client, error, types) from None
        self._note_odd({key.decode() for key in odd})
        return int(due)

    def _note_odd(self, keys: set[str]) -> None:
        now = monotonic()
        for key in keys:
            error = named(self.client, ResponseError(f"WRONGTYPE of {key!r}"), {key: "list"})
            what = _delayed_of(key)
            self._refusals.refused(
                what, error, action="key_misplaced", facts={"key": key}, level=logging.ERROR
            )
            self._odd[key] = now
        # They are tried again every few seconds; those that are not refused again have succeeded.
        for key in [key for key, seen in self._odd.items() if now - seen > _ODD_LIST_OVER_S]:
            self._refusals.worked(_delayed_of(key))
            del self._odd[key]

    def waiting(self) -> int:
        """Return how many messages are in the delay store."""
        return int(self.client.zcard(self._delayed))

    @property
    def _delay_types(self) -> dict[str, str]:
        return {self._delayed: "zset", self._messages: "hash"}

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
            types = self._delay_types
            self._defer.queue(pipe, list(types), self._waiting_entry(one, one.due_us))
            return types
        key, document = self._prepare(one.message, one.queue, one.priority, one.stamp, ())
        pipe.lpush(key, document)
        return {key: "list"}

    def _waiting_entry(self, one: Outgoing, due_us: int) -> Sequence[Argument]:
        """Return the arguments of the script that puts a message into the delay store."""
        key, document = self._prepare(one.message, one.queue, one.priority, one.stamp, ("eta",))
        stamp = one.stamp
        # The same message again replaces it; one without an epoch has only Celery's counts.
        member = f"{one.job_id}:{stamp.generation}:{stamp.seq}"
        if stamp.nesting:
            member += f":{stamp.nesting}"
        return [member, due_us // 1000, f"{key}\n{document}"]

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
        cause = named(self.client, error, types) if isinstance(error, ResponseError) else error
        failure = PublishFailed(f"job {job_id} was not published: {cause}")
        failure.__cause__ = error
        return failure


def _delayed_of(key: str) -> str:
    return f"due messages stay in the delay store, because Redis refuses to move them to {key}"
