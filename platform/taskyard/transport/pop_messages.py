"""Take messages from the queues for one channel, and wait for new ones.

A pop asks Redis for a batch of messages; the acknowledgements that are due travel with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from queue import Empty
from time import monotonic
from typing import Any, Final, NoReturn

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from taskyard.store import Argument, Script, is_of_replica
from taskyard.transport.heartbeat_and_sweep import Ownership
from taskyard.transport.pop_request import Found, Order, Pop
from taskyard.transport.queue_notifications import Wake
from taskyard.transport.redis_access import Server
from taskyard.transport.stored_messages import suffix_of
from taskyard.wire.redacted_logs import logger

__all__ = ["BATCH", "Popper"]

log = logger(__name__)

# A pop takes at most this many messages, even if the prefetch count would allow more.
BATCH: Final = 32
# How long a channel that closes waits for its last pop's answer, if there is no `socket_timeout`.
SETTLE_S: Final = 5.0
_POP: Final = "Redis refused to give messages, so this worker takes none from its queues"


class Popper:
    """Takes batches of messages for `channel`, kombu's, over its consuming connection.

    The channel's `_in_poll` is kombu's note that an answer, or the notice of a filled list, is
    expected on that connection. `order` is set when the channel has read its options.
    """

    order: Order

    def __init__(self, channel: Any, server: Server, ownership: Ownership) -> None:
        self._channel, self._server, self._ownership = channel, server, ownership
        self.script = Script.of("taskyard.transport", "pop")
        self.wake = Wake()
        # Messages that a pop has brought and no consumer has got yet.
        self.brought: deque[Found] = deque()
        self.serial = 0
        self._sent = Pop()
        self._unread: set[str] = set()

    # -- sending a pop -------------------------------------------------------------------------

    def send(self) -> None:
        """Send the next request for messages (a pop), with the acknowledgements that are due."""
        channel = self._channel
        queues = channel.active_queues
        if not queues:
            return
        self._ownership.beat_if_late()
        connection = channel.client.connection
        self.wake.prepare(connection)
        if not self.order.rotates:
            queues = channel._queue_cycle.consume(len(queues))
            if not queues:
                return
        asked, wanted = self.order.next(queues, self._credit())
        self._sent = Pop(asked, self._reserve(wanted), wanted, channel.qos.take_done())
        try:
            connection.send_command(*self.script.command(*self.call(self._sent)))
        except BaseException:
            self.give_up_reply()
            raise
        channel._in_poll = connection
        channel._brpop_sent_at = monotonic()

    def _credit(self) -> int:
        qos = self._channel.qos
        if "can_consume" in qos.__dict__:
            # The worker counts itself (`worker_disable_prefetch`): it may take one, then asks
            # again.
            return 1
        free = qos.can_consume_max_estimate()
        return BATCH if free is None else max(1, min(free, BATCH))

    def _reserve(self, count: int) -> int:
        """Reserve `count` serial numbers for delivery tags; return the first one.

        A pop whose answer is lost may have recorded messages under its numbers, so no other
        pop may use them.
        """
        first, self.serial = self.serial, self.serial + count
        return first

    def call(self, pop: Pop) -> tuple[list[str], list[Argument]]:
        """Return keys and arguments of the script that takes messages."""
        channel, owner = self._channel, self._ownership
        lists = [channel._q_for_pri(queue, step) for queue, step in pop.asked]
        held = (channel.unacked_key, channel.unacked_index_key, channel.heartbeats_key)
        suffixes = [suffix_of(queue) for queue, _ in pop.asked]
        keys = self._server.full(*held, *lists)
        facts = [pop.first, pop.wanted, len(lists)]
        return keys, [owner.name, owner.description, *facts, *suffixes, *pop.tags]

    # -- reading its answer --------------------------------------------------------------------

    def read(self) -> None:
        """Read messages into `brought`, or the notice that a list was filled.

        Raises `Empty` if there is no message yet.
        """
        connection = self._channel.client.connection
        # Without a pop only a notice can come: the queues were cancelled while Redis watched them.
        if self.wake.waiting or not self._sent.asked:
            self._read_news(connection)
        try:
            answer = self._read_reply(connection)
        except ResponseError as error:
            self.give_up_reply()
            self._wait_refused(connection, error)
            raise Empty from error
        except BaseException:
            self.give_up_reply()
            raise
        self._server.backoff.succeeded(_POP)
        batch = self._answered(answer)
        if not batch:
            self._rest(connection)
            raise Empty
        self._channel._in_poll = None
        self.brought.extend(batch)

    def _read_reply(self, connection: Any) -> Any:
        try:
            return connection.read_response()
        except NoScriptError:
            call = self.script.command(*self.call(self._sent), known=False)
            connection.send_command(*call)
            return self._read_reply(connection)
        except ResponseError:
            raise
        except self._channel.connection_errors:
            connection.disconnect()
            raise

    def _wait_refused(self, connection: Any, error: ResponseError) -> None:
        """Take no messages for a while; running jobs and acknowledgements continue.

        If a replica refused, the connection is closed, and the consumer connects to the new
        primary.
        """
        if is_of_replica(error):
            log.warning(
                "this worker is connected to a Redis replica, which refuses to give messages: "
                "%s. The worker closes the connection and connects to the new primary",
                error,
                extra={"action": "pop_refused"},
            )
            connection.disconnect()
            raise RedisConnectionError(
                f"a Redis replica refuses to give messages: {error}"
            ) from error
        wait_s = self._server.tolerate(_POP, error)
        self._channel._in_poll = connection
        self.wake.wait(monotonic(), wait_s)

    def give_up_reply(self) -> None:
        """Give up waiting for the answer of a pop; its acknowledgements are sent again."""
        self._channel._in_poll = None
        self.wake.waiting = False
        self._channel.qos.undo(self._sent.tags)
        self._sent = Pop()

    def _answered(self, answer: list[Any]) -> list[Found]:
        sent, self._sent = self._sent, Pop()
        return self._batch(sent, answer)

    def _batch(self, sent: Pop, answer: list[Any]) -> list[Found]:
        """Return the messages in a pop's answer, and note the lists that could not be read.

        A list that cannot be read does not delay the others.
        """
        channel = self._channel
        batch, unread = sent.read(self._ownership.name, answer)
        if not self.order.rotates:
            for found in batch:
                channel._queue_cycle.rotate(found.queue)
        if unread or self._unread:
            errors = {channel._q_for_pri(one.queue, one.step): one.error for one in unread}
            self._note_unread(errors, asked_all=len(batch) < sent.wanted)
        return batch

    def _note_unread(self, errors: dict[str, str], *, asked_all: bool) -> None:
        server = self._server
        for key, error in errors.items():
            # Such a list is seen at every pop, and explained only the first time.
            if not server.backoff.waits_s(_unread(key)):
                server.tolerate(_unread(key), ResponseError(error), key)
        if asked_all:
            for key in self._unread - errors.keys():
                server.backoff.succeeded(_unread(key))
            self._unread.clear()
        self._unread |= errors.keys()

    # -- one message at a time -----------------------------------------------------------------

    def take_one(self, queue: str, client: Any) -> Found | None:
        """Take one message at once (`basic_get`); return None if there is none."""
        pop = Pop([(queue, step) for step in self._channel.priority_steps], self._reserve(1), 1)
        self._ownership.has_beaten = True
        try:
            answer = self.script(self._server.plain(client), *self.call(pop))
        except ResponseError as error:
            self._server.refuse(error)
        return next(iter(self._batch(pop, answer)), None)

    # -- waiting -------------------------------------------------------------------------------

    def _rest(self, connection: Any) -> None:
        """Wait until the server announces messages, because the last pop found none."""
        self.wake.wait(monotonic())
        if connection.can_read(timeout=0):
            # The notice came in the same packet as the answer; the socket will not wake us again.
            self.ask_again()

    def _read_news(self, connection: Any) -> NoReturn:
        try:
            connection.read_response(push_request=True)
        except self._channel.connection_errors:
            connection.disconnect()
            raise
        finally:
            self.ask_again()
        raise Empty

    def ask_again(self) -> None:
        """Make the next tick of the loop ask for messages."""
        self.wake.waiting = False
        self._channel._in_poll = None
        self._channel._flush_brpop_reauth()

    @property
    def polls(self) -> bool:
        """Return whether this worker must poll, because Redis refused to announce new messages."""
        return self.wake.refused and bool(self._channel.active_queues)

    def ask_if_overdue(self) -> None:
        """Ask for messages after the longest wait, so that a dead connection is noticed."""
        if self.wake.overdue(monotonic()):
            self.ask_again()

    # -- closing -------------------------------------------------------------------------------

    def settle(self) -> None:
        """Wait for the answer of a pop that was sent, and return its messages unchanged.

        The channel is about to end, so no consumer gets them.
        """
        if self._channel._in_poll and not self.wake.waiting:
            try:
                self.brought.extend(self._last_answer())
            finally:
                # If it did not come, its acknowledgements are sent again.
                self.give_up_reply()
        self.return_brought()

    def return_brought(self, consumed: Collection[str] = ()) -> None:
        """Return the messages of a pop to their queues unchanged, because no consumer gets them.

        Those of the queues in `consumed` stay.
        """
        # The newest first: each becomes the next of its queue.
        for found in reversed(tuple(self.brought)):
            if found.queue not in consumed:
                self._channel.qos.giving_back.hand_back(found.tag)
                self.brought.remove(found)

    def _last_answer(self) -> list[Found]:
        channel = self._channel
        connection = channel.client.connection
        longest_s = SETTLE_S if channel.socket_timeout is None else channel.socket_timeout
        if not connection.can_read(timeout=longest_s):
            raise RedisTimeoutError(
                f"Redis did not answer a request for messages within {longest_s:g} s"
            )
        return self._answered(self._read_reply(connection))


def _unread(key: str) -> str:
    return f"Redis did not read the list {key!r}, so its messages are not delivered"
