"""Which messages are out, and how they are acknowledged, given back or returned to the queue."""

from __future__ import annotations

import json
from time import monotonic
from typing import Any, Final

import redis
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from redis.exceptions import ResponseError

from taskyard.store import Script
from taskyard.transport.owners import Swept, list_of
from taskyard.transport.pace import AckRate
from taskyard.transport.stored import mark_redelivered, stored_parts
from taskyard.wire.logs import logger

__all__ = ["RESTORE_BATCH", "RETURN_S", "QoS", "give_back"]

log = logger(__name__)

# One sweep must not stall the event loop: 100 restores are 100 pipelined commands.
RESTORE_BATCH: Final = 100
# How long a message that came back before is kept when it is to go back again.
RETURN_S: Final = 1.0
# How long an acknowledgement waits for a pop to take it along, while jobs end quickly.
_ACK_DELAY_S: Final = 0.005
# How long nothing must have ended before what is held beyond the prefetch count is too much.
_SURPLUS_S: Final = 1.0
_RETURN: Final = "a message not given back"
_ACKNOWLEDGE: Final = "messages not acknowledged"
_RESTORE: Final = "a message of a dead or overdue consumer not given back"
_RESTORE_SCRIPT = Script.of("taskyard.transport", "restore")


def give_back(
    client: redis.Redis, unacked: str, index: str, tag: str, stored: bytes, queue_list: str
) -> bool:
    """Make a message the next of its list, unless somebody has settled or returned it meanwhile.

    All keys by their full names. Raises redis-py's errors; the message is still held then.
    """
    message, _, _ = stored_parts(stored)
    if not isinstance(message, bytes):
        message = json.dumps(mark_redelivered(message)).encode()
    return bool(_RESTORE_SCRIPT(client, [unacked, index, queue_list], [tag, message, "next"]))


class QoS(kombu_redis.QoS):  # type: ignore[misc]
    """kombu's bookkeeping, with the recording done by the pop and acknowledgements in batches."""

    _on_collect: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # At the end of a process the channel closes as a whole.
        self._on_collect.cancel()
        self._done: list[str] = []
        # Tag -> when it goes back. Until then the message keeps its place in the prefetch count.
        self._returns: dict[str, float] = {}
        self._quiet_until = 0.0
        self._pace = AckRate()
        self._done_since = 0.0
        # Tags that no process has begun: they go back as they came.
        self._unbegun: set[str] = set()
        self._counted: set[str] = set()

    # -- how many may be out -------------------------------------------------------------------

    def can_consume(self) -> bool:
        """Whether to send a pop."""
        room = self.can_consume_max_estimate()
        return room is None or room > 0

    def can_consume_max_estimate(self) -> int | None:
        """How many messages the next pop may take; None without a prefetch count.

        While jobs end quickly a consumer may hold `burst` times its prefetch count, and a pop
        waits until half of that is free: one for four messages costs little more than one for one.
        """
        if not self.prefetch_count:
            return None
        held = self.held()
        limit: int = self.prefetch_count
        if not self._bursts(monotonic()):
            return max(limit - held, 0)
        limit *= self.channel.burst
        free = limit - held
        return free if free >= limit // 2 else 0

    def over_prefetch(self) -> int:
        """How many messages beyond the prefetch count wait here while nothing ends any more."""
        now = monotonic()
        if not self.prefetch_count or self._pace.silent_s(now) < _SURPLUS_S:
            return 0
        over_prefetch: int = self.held() - self.prefetch_count
        return max(over_prefetch, 0)

    def mark_not_started(self, delivery_tag: str) -> None:
        """Let the coming `reject` return a message as the next one, not marked as redelivered."""
        self._unbegun.add(delivery_tag)

    def note_counted(self, delivery_tag: str) -> None:
        """Let the coming `reject` return a message at once: a counter bounds how often it comes."""
        self._counted.add(delivery_tag)

    def _bursts(self, now: float) -> bool:
        burst = self.channel.burst
        return burst > 1 and self._pace.quick(self.prefetch_count * burst, now)

    def held(self) -> int:
        """How many messages are out and neither acknowledged nor given back."""
        return len(self._delivered) - len(self._dirty)

    # -- acknowledging and giving back ---------------------------------------------------------

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a delivered message; Redis has it as unacknowledged since its pop."""
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge: with the next pop, or at the latest with the next tick of the loop.

        Celery's hub does it a tick late. On a channel that was closed meanwhile it is too late: the
        message went back, or goes back when its owner counts as dead.
        """
        if self.channel.closed:
            return
        now = monotonic()
        if not self._done:
            self._done_since = now
        self._done.append(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)
        self._pace.note(now)
        if not self.channel.in_loop:
            self.flush()
        elif len(self._done) == 1 and self._bursts(now):
            self.channel.connection.tick_within(_ACK_DELAY_S)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give back to the end of the queue, or drop.

        A message that came back before waits for `RETURN_S` first: what makes this worker give it
        back would make it do so again at once, and a loop without a pause helps no one. A death
        that was counted (`note_counted`) does not wait.
        """
        if not requeue:
            self.ack(delivery_tag)
            return
        if self.channel.closed:
            return
        bounded = delivery_tag in self._unbegun or delivery_tag in self._counted
        self._counted.discard(delivery_tag)
        if self._came_back(delivery_tag) and not bounded:
            self._returns[delivery_tag] = monotonic() + RETURN_S
            return
        # Noted before it is tried: what could not go back is tried again by `flush`.
        self._returns[delivery_tag] = monotonic()
        self._give_back(delivery_tag)

    def _came_back(self, tag: str) -> bool:
        """Whether the message was out before; without a consumer nothing would flush later."""
        message = self._delivered.get(tag)
        if message is None or not self.channel.active_queues:
            return False
        return bool((message.delivery_info or {}).get("redelivered"))

    def _give_back(self, tag: str) -> None:
        try:
            self.restore_by_tag(tag, leftmost=tag not in self._unbegun)
        except ResponseError as error:
            wait_s = self.channel.tolerate(_RETURN, error, item=tag)
            self._returns[tag] = monotonic() + wait_s
            return
        self.channel.refusals.worked(_RETURN, tag)
        self._returns.pop(tag, None)
        self._unbegun.discard(tag)
        virtual.QoS.ack(self, tag)

    def take_done(self) -> list[str]:
        """The tags to acknowledge now; the caller sends them or puts them back with `undo`."""
        done, self._done = self._done, []
        return done

    def undo(self, tags: list[str]) -> None:
        """Tags whose acknowledgement did not reach the server."""
        self._done = tags + self._done

    def flush_left(self) -> None:
        """`flush` what no pop took along, unless one will soon: quick jobs end in batches."""
        now = monotonic()
        waits = self.held() and self._bursts(now)
        if self._returns or not waits or now - self._done_since >= _ACK_DELAY_S:
            self.flush()

    def flush(self) -> None:
        """Give back what is due to go back, then send the acknowledgements left."""
        now = monotonic()
        if now < self._quiet_until:
            return
        for tag in [tag for tag, due in self._returns.items() if due <= now]:
            self._give_back(tag)
        tags = self.take_done()
        if not tags:
            return
        try:
            self.channel.acknowledge(tags)
        except BaseException as error:
            self.undo(tags)
            if not isinstance(error, ResponseError):
                raise
            self._quiet_until = now + self.channel.tolerate(_ACKNOWLEDGE, error)
        else:
            self.channel.refusals.worked(_ACKNOWLEDGE)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Return one message to its queue, as the last or (default) the next one."""
        with self.channel.conn_or_acquire(client) as connection:
            stored = connection.hget(self.unacked_key, tag)
            if stored is None:
                connection.zrem(self.unacked_index_key, tag)
            else:
                place = "last" if leftmost else "next"
                held = Swept(tag, stored, b"")
                self._restore(connection, held, place, began=tag not in self._unbegun)

    def restore_unacked(self, client: Any = None) -> None:
        """Return everything that is out, the oldest to be consumed first."""
        self._flush()
        with self.channel.conn_or_acquire(client) as connection:
            for tag in list(reversed(self._delivered)):
                try:
                    self.restore_by_tag(tag, client=connection)
                except ResponseError as error:
                    # The next sweep of anybody finds it: its owner is about to sign off.
                    self.channel.tolerate(_RETURN, error, item=tag)
                del self._delivered[tag]

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Acknowledge what is done, then return the rest."""
        if self._done:
            self.flush()
        super().restore_unacked_once(stderr)

    def hand_back(self, tag: str) -> None:
        """Return a message that no consumer was given, as the next one and as it came."""
        self.mark_not_started(tag)
        self.restore_by_tag(tag)
        self._unbegun.discard(tag)

    def forget(self) -> None:
        """Hold nothing any more; what Redis still has as unacknowledged is for a sweep."""
        self._done.clear()
        self._returns.clear()
        self._dirty.clear()
        self._delivered.clear()
        self._delivered.restored = True

    def restore_visible(self, start: int = 0, num: int = RESTORE_BATCH, interval: int = 1) -> None:
        """Return what dead owners left and what is out for longer than the visibility timeout."""
        found = self.channel.sweep(num or RESTORE_BATCH, self.visibility_timeout)
        # Each becomes the next one, so the youngest goes first.
        for swept in sorted(found, key=_age, reverse=True):
            try:
                with self.channel.conn_or_acquire() as connection:
                    self._restore(connection, swept, "next")
            except ResponseError as error:
                self.channel.tolerate(_RESTORE, error, item=swept.tag)
                continue
            self.channel.refusals.worked(_RESTORE, swept.tag)
            log.warning(
                "a message of a dead or overdue consumer is back in its queue: %s",
                swept.tag,
                extra={"action": "message_restored", "tag": swept.tag},
            )

    def _restore(self, client: Any, held: Swept, place: str, *, began: bool = True) -> None:
        message, exchange, routing_key = stored_parts(held.stored)
        if isinstance(message, bytes):
            self.channel.put_back(client, held.tag, message, [routing_key], place)
            return
        priority = self.channel._get_message_priority(message, reverse=False)
        body = json.dumps(mark_redelivered(message) if began else message).encode()
        queues = self.channel.queues_of(exchange, routing_key)
        lists = [
            list_of(held.description, queue, priority) or self.channel._q_for_pri(queue, priority)
            for queue in queues
        ]
        self.channel.put_back(client, held.tag, body, lists, place)


def _age(found: Swept) -> tuple[str, int]:
    owner, _, serial = found.tag.rpartition(":")
    return owner, int(serial) if serial.isdecimal() else 0
