"""The broker of a yard in memory: queues in the order of urgency, and delayed messages."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from taskyard.broker.republished_headers import headers_of
from taskyard.queues import broker_priority
from taskyard.settings import Settings
from taskyard.wire.letter_envelope import RawMessage
from taskyard.wire.lossless_json import pack
from taskyard.wire.stamp_header import Stamp

__all__ = ["MemoryBroker", "Message", "SentReply"]


def _holds_nothing(_queue: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Message:
    """A message in a queue; `urgency` 0 is served first."""

    raw: RawMessage
    job_id: str
    queue: str
    urgency: int
    redelivered: bool = False


@dataclass(frozen=True, slots=True)
class SentReply:
    """A reply to a service's own queue, about a job that an operator has ended.

    `body` has `job_id` and `state`; a forced completion adds `result` and perhaps `summary`.
    """

    queue: str
    correlation_id: str
    message_id: str
    body: dict[str, Any]


@dataclass
class MemoryBroker:
    """A broker in memory, with the methods of `taskyard.broker`'s publishers.

    A worker takes messages from it strictly by urgency.
    """

    settings: Settings
    delivered: dict[str, list[Message]] = field(default_factory=dict)
    replies: list[SentReply] = field(default_factory=list)
    _ready: deque[Message] = field(default_factory=deque)
    _waiting: dict[str, tuple[int, Message]] = field(default_factory=dict)
    _parked: dict[str, tuple[str, Message]] = field(default_factory=dict)
    _serial: Iterator[int] = field(default_factory=count)

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
        """Put a message at the end of `queue`."""
        self._ready.append(self._prepare(message, queue, priority, job_id, stamp, strip))

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
        """Keep a message until `due_us`; publishing the same message again replaces it."""
        prepared = self._prepare(message, queue, priority, job_id, stamp, ("eta",))
        self._waiting[f"{job_id}:{stamp.generation}:{stamp.seq}"] = due_us, prepared

    def park(
        self,
        message: RawMessage,
        *,
        queue: str,
        priority: int | None,
        job_id: str,
        stamp: Stamp,
        switch: str,
    ) -> None:
        """Keep a message until `switch` is off; parking the same message again replaces it."""
        prepared = self._prepare(message, queue, priority, job_id, stamp, ("eta",))
        self._parked[f"{job_id}:{stamp.generation}:{stamp.seq}"] = switch, prepared

    def release(self, is_on: Callable[[str], bool]) -> None:
        """Move the messages of switches that are off to their queues, the first parked first."""
        off = [member for member, (switch, _) in self._parked.items() if not is_on(switch)]
        self._ready.extend(self._parked.pop(member)[1] for member in off)

    def publish_reply(self, message: RawMessage, *, queue: str, job_id: str) -> None:
        """Keep a reply to the service of a job; no worker takes it."""
        ids = (message.properties["correlation_id"], message.properties["message_id"])
        self.replies.append(SentReply(queue, *ids, json.loads(message.body)))

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def put_back(self, message: Message) -> None:
        """Put a delivered message that was not acknowledged back, as the next one."""
        self._ready.appendleft(replace(message, redelivered=True))

    def return_held(self, message: Message) -> None:
        """Put a message back as the next one of its queue, unchanged: a switch holds the queue."""
        self._ready.appendleft(message)

    def keep_until(self, message: Message, due_us: int) -> None:
        """Keep a delivered message until `due_us`; then make it the next one again."""
        self._waiting[f"{message.job_id}:kept:{next(self._serial)}"] = due_us, message

    def promote(self, now_us: int) -> None:
        """Move due messages to their queues, in the order of their times.

        Messages that a worker kept come first.
        """
        due = sorted(
            (due_us, member) for member, (due_us, _) in self._waiting.items() if due_us <= now_us
        )
        messages = [self._waiting.pop(member)[1] for _, member in due]
        self._ready.extend(message for message in messages if not message.redelivered)
        self._ready.extendleft(message for message in messages[::-1] if message.redelivered)

    def pop(self, holds: Callable[[str], bool] = _holds_nothing) -> Message | None:
        """Return the most urgent message that has waited longest; None if there is no message.

        The messages of queues that `holds` says stay where they are.
        """
        held = {queue: holds(queue) for queue in {waiting.queue for waiting in self._ready}}
        free = [waiting for waiting in self._ready if not held[waiting.queue]]
        if not free:
            return None
        message = min(free, key=lambda waiting: waiting.urgency)
        self._ready.remove(message)
        self.delivered.setdefault(message.job_id, []).append(message)
        return message

    def waiting_in(self, queue: str, *, delayed: bool) -> list[Message]:
        """Return the messages of a queue, with `delayed` also those that are not due yet."""
        later = [message for _, message in self._waiting.values()] if delayed else []
        return [message for message in (*self._ready, *later) if message.queue == queue]

    def remove(self, message: Message) -> None:
        """Remove a message that was not delivered."""
        if message in self._ready:
            self._ready.remove(message)
        self._waiting = {
            member: waiting for member, waiting in self._waiting.items() if waiting[1] != message
        }

    def place_of(self, job_id: str) -> tuple[int | None, int]:
        """Return how many messages are served before the job's, and how many are ready in all.

        None if none of its messages is ready. All queues of a yard are served as one.
        """
        ordered = sorted(self._ready, key=lambda waiting: waiting.urgency)
        ids = [message.job_id for message in ordered]
        return (ids.index(job_id) if job_id in ids else None), len(ids)

    def due_us_of(self, job_id: str) -> int | None:
        """Return when the job's delayed message is due; None if it has none."""
        due = [due_us for due_us, message in self._waiting.values() if message.job_id == job_id]
        return min(due, default=None)

    def next_due_us(self) -> int | None:
        """Return when the next delayed message is due; None if there is no delayed message."""
        return min((due_us for due_us, _ in self._waiting.values()), default=None)

    def __len__(self) -> int:
        """Return how many messages there are, ready, waiting or parked."""
        return len(self._ready) + len(self._waiting) + len(self._parked)

    def _prepare(
        self,
        message: RawMessage,
        queue: str,
        priority: int | None,
        job_id: str,
        stamp: Stamp,
        strip: Iterable[str],
    ) -> Message:
        configured = self.settings.queue(queue)
        urgency = broker_priority(
            configured, configured.default_priority if priority is None else priority
        )
        headers = {name: pack(v) for name, v in headers_of(message, stamp, strip).items()}
        raw = message.model_copy(update={"headers": headers})
        return Message(raw, job_id, queue, urgency)
