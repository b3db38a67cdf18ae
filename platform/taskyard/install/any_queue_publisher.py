"""Publish operators' messages to Taskyard's queues, and to those of installed apps.

The workers of an installed app announce the keys of its queues.
"""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from redis.exceptions import RedisError

from taskyard.broker import (
    BatchPublisher,
    Outgoing,
    QueueMessages,
    RabbitQueueMessages,
    RedisPublisher,
    RedisQueueMessages,
    connection,
    make_publisher,
    own_layout,
)
from taskyard.broker.queue_name_and_priority import queue_name
from taskyard.broker.queued_messages import Document, Position, QueuedMessages
from taskyard.broker.redis_keys import PLAIN, Layout
from taskyard.broker.republished_headers import restamped
from taskyard.errors import PublishFailed, Refused
from taskyard.install.announced_queues import RABBIT, AnnouncedQueue, AnnouncedQueues, find_mark
from taskyard.install.app_redis_publisher import AppRedisPublisher
from taskyard.queues import broker_priority, fitting_priority
from taskyard.records import Records
from taskyard.settings import Settings
from taskyard.wire.letter_envelope import RawMessage
from taskyard.wire.stamp_header import Stamp

__all__ = ["AnyQueuePublisher"]

_UNREACHED: Final = (Refused, PublishFailed, RedisError)


class AnyQueuePublisher:
    """A `Publisher` that looks up the keys of a queue which the settings do not name.

    If no worker has announced the queue, kombu's default keys are used.
    """

    def __init__(self, settings: Settings, records: Records) -> None:
        self._settings = settings
        self._own = make_publisher(settings, records.now_us)
        self._now_us = records.now_us
        self._announced = AnnouncedQueues(records.client, settings.namespace)
        self._by_layout: dict[Layout, RedisPublisher] = {}

    def is_announced(self, queue: str) -> bool:
        """Return whether a worker of an installed app reads the queue."""
        return bool(self._announced.of(queue))

    def check(self, queue: str) -> None:
        """Raise an error if no worker would read a message to `queue`.

        `PublishFailed` if the queue's workers announce different keys: after an app changes
        its keys, this ends by itself within minutes. `Refused` if the workers read the
        queue at another broker.
        """
        self._announced_at(queue)

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
        """Publish a message, as `Publisher.publish`."""
        self._reaching(queue, job_id).publish(
            message, queue=queue, priority=priority, job_id=job_id, stamp=stamp, strip=strip
        )

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
        """Publish a message for a later time, as `Publisher.publish_later`."""
        self._reaching(queue, job_id).publish_later(
            message, queue=queue, priority=priority, job_id=job_id, stamp=stamp, due_us=due_us
        )

    def publish_many(self, messages: Sequence[Outgoing]) -> list[PublishFailed | None]:
        """Publish all messages; those under the same keys together.

        Returns an error for each message that the broker has not confirmed.
        """
        outcomes: list[PublishFailed | None] = [None] * len(messages)
        together: dict[BatchPublisher, list[int]] = defaultdict(list)
        for queue in dict.fromkeys(one.queue for one in messages):
            places = [at for at, one in enumerate(messages) if one.queue == queue]
            try:
                together[self._reach(queue)] += places
            except _UNREACHED as error:
                for at in places:
                    outcomes[at] = _unpublished(messages[at].job_id, error)
        for publisher, places in together.items():
            found = publisher.publish_many([messages[at] for at in places])
            for at, outcome in zip(places, found, strict=True):
                outcomes[at] = outcome
        return outcomes

    def publish_reply(self, message: RawMessage, *, queue: str, job_id: str) -> None:
        """Publish a reply to the service of a job, as `Publisher.publish_reply`."""
        self._own.publish_reply(message, queue=queue, job_id=job_id)

    def fetch(
        self,
        job_id: str,
        *,
        old: str,
        new: str,
        first: Position,
        stamp: Stamp,
        priority: int | None,
    ) -> bool:
        """Move a job's waiting message from queue `old` to `new`; return whether it was found.

        Only at Redis, and only near the end of the queue that is served next, or in the delay
        store, where it keeps its due time. `first` is the first position that the message may
        have; `stamp` is its new one. Raises redis-py's errors.
        """
        if not isinstance(self._own, RedisPublisher):
            return False
        publisher = self._own
        layout, name = self._layout(new), queue_name(self._settings, new)
        sent_us = self._now_us()

        def moved(document: Document) -> tuple[str, str]:
            old_stamp = Stamp.read(document["headers"])
            own = replace(
                stamp, sent_us=sent_us, policy=None if old_stamp is None else old_stamp.policy
            )
            step = self._step(new, priority, document)
            properties = {
                **document["properties"],
                "priority": step if new in self._settings.queues else _priority_of(document),
                "delivery_info": {"exchange": "", "routing_key": name},
                "delivery_tag": str(uuid.uuid4()),
            }
            headers = restamped(document["headers"], own, ("eta",))
            text = json.dumps({**document, "headers": headers, "properties": properties})
            return layout.key(name, step), text

        lists = self._layout(old).keys(queue_name(self._settings, old))
        before = (stamp.epoch, stamp.generation, stamp.seq)
        queued = QueuedMessages(publisher.client, publisher.delay_store)
        return queued.move(job_id, lists, first, before, moved)

    def messages_of(self, queue: str) -> QueueMessages:
        """Return access to what waits in a queue of the settings or of an installed app.

        An app's queue has the lists of all keys under which workers read it. Raises `UnknownQueue`,
        `Refused` for a queue at another broker, and redis-py's errors.
        """
        found = [] if queue in self._settings.queues else self._announced.of(queue)
        if not found:
            self._settings.queue(queue)  # raises, with the nearest names, for an unknown queue
        name = queue_name(self._settings, queue)
        if any(one.mark != self._mark() for one in found):
            raise Refused(
                f"workers of queue {queue!r} read it at another broker than this one: set "
                "TASKYARD_BROKER_URL to the app's broker"
            )
        if not isinstance(self._own, RedisPublisher):
            return RabbitQueueMessages(partial(connection, self._settings), name)
        layouts = [one.layout for one in found] or [own_layout(self._settings)]
        lists = dict.fromkeys(key for layout in layouts for key in layout.keys(name))
        return RedisQueueMessages(self._own.client, list(lists), self._own.delay_store)

    def _layout(self, queue: str) -> Layout:
        if queue in self._settings.queues:
            return own_layout(self._settings)
        entry = self._announced_at(queue)
        return PLAIN if entry is None else entry.layout

    def _step(self, queue: str, priority: int | None, document: Document) -> int:
        known = self._settings.queues.get(queue)
        if known is None:
            return self._layout(queue).step(_priority_of(document))
        wanted = fitting_priority(priority, known)
        return broker_priority(known, known.default_priority if wanted is None else wanted)

    def close(self) -> None:
        """Close the connection to the broker."""
        self._own.close()

    def _reaching(self, queue: str, job_id: str) -> BatchPublisher:
        try:
            return self._reach(queue)
        except _UNREACHED as error:
            raise _unpublished(job_id, error) from error

    def _reach(self, queue: str) -> BatchPublisher:
        entry = self._announced_at(queue)
        if queue in self._settings.queues or not isinstance(self._own, RedisPublisher):
            return self._own
        layout = PLAIN if entry is None else entry.layout
        made = self._by_layout.get(layout)
        if made is None:
            made = AppRedisPublisher(self._settings, self._own.client, layout)
            self._by_layout[layout] = made
        return made

    def _announced_at(self, queue: str) -> AnnouncedQueue | None:
        if queue in self._settings.queues:
            return None
        entries = self._announced.of(queue)
        if len(entries) > 1:
            raise PublishFailed(
                f"the workers of queue {queue!r} read it under {len(entries)} different sets of "
                "keys. The replay waits until they agree, some minutes after the last old worker "
                "has ended; if these are two apps, give each its own namespace (TASKYARD_NAMESPACE)"
            )
        for entry in entries:
            if entry.mark != self._mark():
                raise Refused(
                    f"the workers of queue {queue!r} read it at another broker than this relay's: "
                    "set TASKYARD_BROKER_URL of relay and mirror to the app's broker"
                )
            return entry
        return None

    def _mark(self) -> str:
        if isinstance(self._own, RedisPublisher):
            return find_mark(self._own.client, self._settings.namespace)
        return RABBIT


def _unpublished(job_id: str, error: Exception) -> PublishFailed:
    return PublishFailed(f"job {job_id} was not published: {error}")


def _priority_of(document: Document) -> int:
    value = document["properties"].get("priority")
    return value if isinstance(value, int) and value > 0 else 0
