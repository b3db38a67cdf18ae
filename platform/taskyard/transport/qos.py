"""Which messages are out, and how they are acknowledged, given back or returned to the queue."""

from __future__ import annotations

import json
import logging
from typing import Any, Final

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual

from taskyard.transport.stored import mark_redelivered, stored_parts

__all__ = ["RESTORE_BATCH", "QoS"]

log = logging.getLogger(__name__)

# One sweep must not stall the event loop: 100 restores are 100 pipelined commands.
RESTORE_BATCH: Final = 100


class QoS(kombu_redis.QoS):  # type: ignore[misc]
    """kombu's bookkeeping, with the recording done by the pop and acknowledgements in batches."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._done: list[str] = []
        self._returns: list[str] = []

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a delivered message; Redis has it as unacknowledged since its pop."""
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge: with the next pop, or at the latest with the next tick of the loop."""
        self._done.append(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)
        if not self.channel.in_loop:
            self.flush()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give back to the end of the queue, or drop."""
        if not requeue:
            self.ack(delivery_tag)
            return
        try:
            self.restore_by_tag(delivery_tag, leftmost=True)
        except self.channel.connection_errors:
            # A worker that keeps its place for a message it could not give back goes deaf.
            self._returns.append(delivery_tag)
            raise
        finally:
            virtual.QoS.ack(self, delivery_tag)

    def take_done(self) -> list[str]:
        """The tags to acknowledge now; the caller sends them or puts them back with `undo`."""
        done, self._done = self._done, []
        return done

    def undo(self, tags: list[str]) -> None:
        """Tags whose acknowledgement did not reach the server."""
        self._done = tags + self._done

    def flush(self) -> None:
        """Give back what could not be given back, then send the acknowledgements left."""
        while self._returns:
            self.restore_by_tag(self._returns[0], leftmost=True)
            self._returns.pop(0)
        tags = self.take_done()
        if not tags:
            return
        try:
            self.channel.acknowledge(tags)
        except BaseException:
            self.undo(tags)
            raise

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Return one message to its queue, as the last or (default) the next one."""
        with self.channel.conn_or_acquire(client) as connection:
            stored = connection.hget(self.unacked_key, tag)
            if stored is None:
                connection.zrem(self.unacked_index_key, tag)
            else:
                self._restore(connection, tag, stored, "last" if leftmost else "next")

    def restore_unacked(self, client: Any = None) -> None:
        """Return everything that is out, the oldest to be consumed first."""
        self._flush()
        with self.channel.conn_or_acquire(client) as connection:
            for tag in reversed(self._delivered):
                self.restore_by_tag(tag, client=connection)
        self._delivered.clear()

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Acknowledge what is done, then return the rest."""
        if self.channel is not None and self._done:
            self.flush()
        super().restore_unacked_once(stderr)

    def restore_visible(self, start: int = 0, num: int = RESTORE_BATCH, interval: int = 1) -> None:
        """Return what dead owners left and what is out for longer than the visibility timeout."""
        found = self.channel.sweep(num or RESTORE_BATCH, self.visibility_timeout)
        # Each becomes the next one, so the youngest goes first.
        for tag, stored in sorted(found, key=_age, reverse=True):
            with self.channel.conn_or_acquire() as connection:
                self._restore(connection, tag, stored, "next")
            log.warning(
                "a message of a dead or overdue consumer is back in its queue: %s",
                tag,
                extra={"action": "message_restored", "tag": tag},
            )

    def _restore(self, client: Any, tag: str, stored: bytes, place: str) -> None:
        message, exchange, routing_key = stored_parts(stored)
        if isinstance(message, bytes):
            self.channel.put_back(client, tag, message, routing_key, place)
            return
        step = self.channel._get_message_priority(message, reverse=False)
        body = json.dumps(mark_redelivered(message)).encode()
        for queue in self.channel.queues_of(exchange, routing_key):
            self.channel.put_back(client, tag, body, self.channel._q_for_pri(queue, step), place)


def _age(found: tuple[str, bytes]) -> tuple[str, int]:
    owner, _, serial = found[0].rpartition(":")
    return owner, int(serial) if serial.isdecimal() else 0
