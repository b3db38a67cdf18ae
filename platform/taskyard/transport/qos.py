"""Count and limit the messages that are not acknowledged yet, and acknowledge them."""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

from kombu.transport import virtual
from redis.exceptions import ResponseError

from taskyard.transport.ack_rate import AckRate
from taskyard.transport.requeue import RESTORE_BATCH, GiveBack

__all__ = ["QoS"]

# How long an acknowledgement waits for the next pop, while jobs end quickly.
_ACK_DELAY_S: Final = 0.005
_ACKNOWLEDGE: Final = "Redis refused the acknowledgement of finished messages"


class QoS(virtual.QoS):  # type: ignore[misc]
    """kombu's accounting of unacknowledged messages, with acknowledgements in batches.

    The script that takes messages also records them.
    """

    _on_collect: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # kombu would return this object's messages when the process ends; closing the channel does.
        self._on_collect.cancel()
        self.giving_back = GiveBack(self.channel)
        self._ack_rate = AckRate()
        self._done: list[str] = []
        self._done_since = 0.0
        self._quiet_until = 0.0

    # -- how many may be out -------------------------------------------------------------------

    def can_consume(self) -> bool:
        """Return whether the channel may ask for more messages."""
        room = self.can_consume_max_estimate()
        return room is None or room > 0

    def can_consume_max_estimate(self) -> int | None:
        """Return how many messages the next pop may take; None without a prefetch count."""
        if not self.prefetch_count:
            return None
        burst = self.channel.burst
        return self._ack_rate.room(self.held(), self.prefetch_count, burst, monotonic())

    def over_prefetch(self) -> int:
        """Return by how many waiting messages the prefetch count is exceeded while no job ends."""
        if not self.prefetch_count:
            return 0
        return self._ack_rate.over_prefetch(self.held(), self.prefetch_count, monotonic())

    def held(self) -> int:
        """Return how many messages are delivered, and neither acknowledged nor returned."""
        return len(self._delivered) - len(self._dirty)

    def has_unsettled(self) -> bool:
        """Return whether a message is unsettled.

        It was neither acknowledged nor returned, or Redis does not have the acknowledgement
        yet.
        """
        return self.held() > 0 or bool(self._done or self.giving_back.due)

    def _bursts(self, now: float) -> bool:
        return self._ack_rate.bursts(self.prefetch_count, self.channel.burst, now)

    # -- acknowledging -------------------------------------------------------------------------

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message with the next pop, or at the latest with the loop's next tick.

        Celery's hub calls this a tick late. If the channel was closed meanwhile, the
        message was returned to its queue, or returns when its owner counts as dead.
        """
        if self.channel.closed:
            return
        now = monotonic()
        if not self._done:
            self._done_since = now
        self._done.append(delivery_tag)
        self._count_as_settled(delivery_tag)
        self._ack_rate.note(now)
        if not self.channel.in_loop:
            self.flush()
        elif len(self._done) == 1 and self._bursts(now):
            self.channel.connection.tick_within(_ACK_DELAY_S)

    def ack_now(self, tags: list[str]) -> None:
        """Acknowledge several messages in one round trip; raises redis-py's errors."""
        self.channel.server.acknowledge(tags)
        for tag in tags:
            self._count_as_settled(tag)

    def _count_as_settled(self, tag: str) -> None:
        super().ack(tag)

    def take_done(self) -> list[str]:
        """Return the tags of the messages to acknowledge now.

        The caller sends the tags, or puts them back with `undo`.
        """
        done, self._done = self._done, []
        return done

    def undo(self, tags: list[str]) -> None:
        """Put back tags whose acknowledgement did not reach the server."""
        self._done = tags + self._done

    def flush_left(self) -> None:
        """Send the acknowledgements that no pop took with it.

        If a pop follows soon, they wait for it, since quick jobs end in batches.
        """
        now = monotonic()
        waits = self.held() and self._bursts(now)
        if self.giving_back.due or not waits or now - self._done_since >= _ACK_DELAY_S:
            self.flush()

    def flush(self) -> None:
        """Return messages to their queues if that is due, then send the acknowledgements."""
        now = monotonic()
        if now < self._quiet_until:
            return
        for tag in self.giving_back.due_at(now):
            self._give_back(tag)
        tags = self.take_done()
        if not tags:
            return
        server = self.channel.server
        try:
            server.acknowledge(tags)
        except BaseException as error:
            self.undo(tags)
            if not isinstance(error, ResponseError):
                raise
            self._quiet_until = now + server.tolerate(_ACKNOWLEDGE, error)
        else:
            server.backoff.succeeded(_ACKNOWLEDGE)

    # -- giving back ---------------------------------------------------------------------------

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Return a message to the end of its queue, or drop it.

        The return happens at once or after a pause (`GiveBack.plan`). A death that was
        counted (`note_counted`) does not wait.
        """
        if not requeue:
            self.ack(delivery_tag)
            return
        if self.channel.closed:
            return
        came_back = self._came_back(delivery_tag)
        if self.giving_back.plan(delivery_tag, came_back=came_back, now=monotonic()):
            self._give_back(delivery_tag)

    def _came_back(self, tag: str) -> bool:
        """Return whether the message was delivered before.

        Without a consumer nothing would send the acknowledgements later.
        """
        message = self._delivered.get(tag)
        if message is None or not self.channel.active_queues:
            return False
        return bool((message.delivery_info or {}).get("redelivered"))

    def _give_back(self, tag: str) -> None:
        if self.giving_back.try_now(tag, monotonic()):
            self._count_as_settled(tag)

    def mark_not_started(self, delivery_tag: str) -> None:
        """Make the next `reject` put its message back as the next one, not as redelivered."""
        self.giving_back.mark_not_started(delivery_tag)

    def note_counted(self, delivery_tag: str) -> None:
        """Make the next `reject` return a message at once: a counter limits how often it comes."""
        self.giving_back.note_counted(delivery_tag)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Return one message to its queue, as the last or (default) the next one."""
        self.giving_back.restore_by_tag(tag, "last" if leftmost else "next", client)

    def restore_unacked(self, client: Any = None) -> None:
        """Return all unacknowledged messages to their queues, in their original order."""
        self._flush()
        with self.channel.conn_or_acquire(client) as connection:
            for tag in list(reversed(self._delivered)):
                self.giving_back.leave(tag, connection)
                del self._delivered[tag]

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Acknowledge finished messages, then return the others to their queues."""
        if self._done:
            self.flush()
        super().restore_unacked_once(stderr)

    def restore_visible(self, start: int = 0, num: int = RESTORE_BATCH, interval: int = 1) -> None:
        """Put messages of dead owners, and overdue ones, back into their queues."""
        self.giving_back.sweep(num or RESTORE_BATCH, self.channel.visibility_timeout)

    def forget(self) -> None:
        """Forget all messages of this channel.

        A sweep returns those that Redis still has as unacknowledged.
        """
        self._done.clear()
        self.giving_back.due.clear()
        self._dirty.clear()
        self._delivered.clear()
        self._delivered.restored = True
