"""Return messages to their queues: when, to which end of a list, and with which marks."""

from __future__ import annotations

import json
from typing import Any, Final

import redis
from redis.exceptions import ResponseError

from taskyard.store import Script
from taskyard.transport.owner_descriptions import Swept, list_of
from taskyard.transport.stored_messages import mark_redelivered, stored_parts
from taskyard.wire.redacted_logs import logger

__all__ = ["RESTORE_BATCH", "RETURN_S", "GiveBack", "give_back"]

log = logger(__name__)

# One sweep must not block the event loop: 100 restores are 100 pipelined commands.
RESTORE_BATCH: Final = 100
# How long a message that came back before is kept before it goes back again.
RETURN_S: Final = 1.0
_RETURN: Final = "a message was not returned to its queue"
_RESTORE: Final = "a message of a dead or overdue consumer was not returned to its queue"
_SCRIPT: Final = Script.of("taskyard.transport", "restore")


def give_back(
    client: redis.Redis, unacked: str, index: str, tag: str, stored: bytes, queue_list: str
) -> bool:
    """Put a message back as the next one of its list, unless it was acknowledged meanwhile.

    A message that was already returned stays where it is. All keys are full names. Raises
    redis-py's errors; the consumer still holds the message then.
    """
    message, _, _ = stored_parts(stored)
    if not isinstance(message, bytes):
        message = json.dumps(mark_redelivered(message)).encode()
    return bool(_SCRIPT(client, [unacked, index, queue_list], [tag, message, "next"]))


class GiveBack:
    """Returns messages to their queues for one channel.

    They are those of the channel's own consumer, and those that a sweep finds.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        # Tag -> when it goes back. Until then the message counts against the prefetch.
        self.due: dict[str, float] = {}
        # Tags that no process has begun: they go back unchanged.
        self._not_started: set[str] = set()
        self._counted: set[str] = set()

    def mark_not_started(self, tag: str) -> None:
        """Note that a message was not started, so that it becomes the next one of its queue.

        It does not count as redelivered.
        """
        self._not_started.add(tag)

    def note_counted(self, tag: str) -> None:
        """Note that a message goes back at once, because a counter limits how often it comes."""
        self._counted.add(tag)

    def plan(self, tag: str, *, came_back: bool, now: float) -> bool:
        """Plan the return of a message to its queue; return True if that happens at once.

        A message that was returned before waits for `RETURN_S` first: the cause probably
        still exists, and a loop without a pause helps no one.
        """
        bounded = tag in self._not_started or tag in self._counted
        self._counted.discard(tag)
        waits = came_back and not bounded
        # Noted before the try: a failed one is tried again when it is due.
        self.due[tag] = now + RETURN_S if waits else now
        return not waits

    def due_at(self, now: float) -> list[str]:
        """Return the tags of the messages that must be returned to their queues now."""
        return [tag for tag, due in self.due.items() if due <= now]

    def try_now(self, tag: str, now: float) -> bool:
        """Return one message to its queue.

        Return False if Redis refuses; then the message is due again later.
        """
        server = self._channel.server
        try:
            self.restore_by_tag(tag, "next" if tag in self._not_started else "last")
        except ResponseError as error:
            self.due[tag] = now + server.tolerate(_RETURN, error, item=tag)
            return False
        server.backoff.succeeded(_RETURN, tag)
        self.due.pop(tag, None)
        self._not_started.discard(tag)
        return True

    def restore_by_tag(self, tag: str, place: str, client: Any = None) -> None:
        """Return one message to its queue, as the "last" or the "next" one."""
        channel = self._channel
        with channel.conn_or_acquire(client) as connection:
            stored = connection.hget(channel.unacked_key, tag)
            if stored is None:
                connection.zrem(channel.unacked_index_key, tag)
            else:
                began = tag not in self._not_started
                self.restore(connection, Swept(tag, stored, b""), place, began=began)

    def leave(self, tag: str, client: Any) -> None:
        """Put one message back as the next of its queue, before its owner signs off.

        If Redis refuses, a later sweep returns the message.
        """
        try:
            self.restore_by_tag(tag, "next", client)
        except ResponseError as error:
            self._channel.server.tolerate(_RETURN, error, item=tag)

    def hand_back(self, tag: str) -> None:
        """Put a message that no consumer received back as the next one, unchanged."""
        self.mark_not_started(tag)
        self.restore_by_tag(tag, "next")
        self._not_started.discard(tag)

    def sweep(self, limit: int, visibility_timeout_s: float) -> None:
        """Put messages of dead owners, and overdue ones, back into their queues."""
        channel, server = self._channel, self._channel.server
        found = channel.ownership.sweep(limit, visibility_timeout_s)
        # Each message becomes the next one of its queue. So the newest is returned first, and the
        # oldest is the next one at the end.
        for swept in sorted(found, key=_age, reverse=True):
            try:
                with channel.conn_or_acquire() as connection:
                    self.restore(connection, swept, "next")
            except ResponseError as error:
                server.tolerate(_RESTORE, error, item=swept.tag)
                continue
            server.backoff.succeeded(_RESTORE, swept.tag)
            log.warning(
                "a consumer died or held a message for too long; the message was returned to "
                "its queue: %s",
                swept.tag,
                extra={"action": "message_restored", "tag": swept.tag},
            )

    def restore(self, client: Any, held: Swept, place: str, *, began: bool = True) -> None:
        """Put a message into the lists of its queues, unless it was acknowledged meanwhile."""
        message, exchange, routing_key = stored_parts(held.stored)
        if isinstance(message, bytes):
            self._put_back(client, held.tag, message, [routing_key], place)
            return
        channel = self._channel
        priority = channel._get_message_priority(message, reverse=False)
        body = json.dumps(mark_redelivered(message) if began else message).encode()
        lists = [
            list_of(held.description, queue, priority) or channel._q_for_pri(queue, priority)
            for queue in self._queues_of(exchange, routing_key)
        ]
        self._put_back(client, held.tag, body, lists, place)

    def _queues_of(self, exchange: str, routing_key: str) -> list[str]:
        """Return the queues of a message.

        If its exchange has no binding, that is the queue that the routing key names.
        """
        if not exchange:
            return [routing_key]
        return sorted(self._channel._lookup(exchange, routing_key)) or [routing_key]

    def _put_back(self, client: Any, tag: str, body: bytes, lists: list[str], place: str) -> None:
        """Push a message into a list; raises `WrongKeyType` if a key is not a list.

        The message stays unacknowledged then.
        """
        channel, server = self._channel, self._channel.server
        keys = server.full(channel.unacked_key, channel.unacked_index_key, *lists)
        try:
            _SCRIPT(server.plain(client), keys, [tag, body, place])
        except ResponseError as error:
            server.refuse(error, *lists)


def _age(found: Swept) -> tuple[str, int]:
    owner, _, serial = found.tag.rpartition(":")
    return owner, int(serial) if serial.isdecimal() else 0
