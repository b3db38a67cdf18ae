"""The channel: pops batches atomically and waits without polling."""

from __future__ import annotations

from collections import deque
from multiprocessing.util import Finalize
from queue import Empty
from time import monotonic
from typing import Any, Final

from kombu.transport import redis as kombu_redis
from kombu.utils.scheduling import round_robin_cycle
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from taskyard.store import Argument, Script, is_of_replica
from taskyard.transport.closing import leave_server
from taskyard.transport.listening import ListeningChannel
from taskyard.transport.pops import Found, Order, Pop
from taskyard.transport.qos import QoS
from taskyard.transport.stored import message_of, suffix_of
from taskyard.transport.wake import Wake
from taskyard.wire.logs import logger

__all__ = ["BATCH", "Channel", "SentinelChannel"]

log = logger(__name__)

# A pop takes at most this many messages, also where the prefetch count would allow more.
BATCH: Final = 32
# How long a channel that closes waits for its last pop's answer, without a `socket_timeout`.
SETTLE_S: Final = 5.0
_POP: Final = "no messages taken from the queues"


class _AtomicChannel(ListeningChannel):
    """What our channels add to kombu's."""

    QoS = QoS
    fairness = 10
    burst = 1
    _closing = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._serial = 0
        self._sent = Pop()
        # What a pop has brought and no consumer has been given yet.
        self._brought: deque[Found] = deque()
        self._no_ack_queues: set[str] = set()
        self._unread: set[str] = set()
        self._wake = Wake()
        self._popping = Script.of("taskyard.transport", "pop")
        super().__init__(*args, **kwargs)
        # kombu's own ending would return messages through a connection that may have lost its
        # address, with a traceback at the end of the process.
        self._at_exit = Finalize(self, self.close, exitpriority=1)
        # kombu's strategies by another name than round robin want an order that stays.
        rotates = type(self._queue_cycle) is round_robin_cycle
        self._order = Order(self.priority_steps, int(self.fairness), rotates=rotates)

    @property
    def in_loop(self) -> bool:
        """Whether an event loop ticks, so that acknowledgements may wait for its next tick."""
        return bool(self.connection.in_loop)

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume; what a consumer without acknowledgements gets is acknowledged on delivery."""
        if no_ack:
            self._no_ack_queues.add(queue)
        else:
            self._no_ack_queues.discard(queue)
        result = super().basic_consume(queue, no_ack, *args, **kwargs)
        if self.active_queues:
            self.beat()
        return result

    # -- sending a pop -------------------------------------------------------------------------

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Send the next pop, together with the acknowledgements that are due."""
        queues = self.active_queues
        if not queues:
            return
        self.beat_if_late()
        connection = self.client.connection
        self._wake.prepare(connection)
        if not self._order.rotates:
            queues = self._queue_cycle.consume(len(queues))
            if not queues:
                return
        asked, wanted = self._order.next(queues, self._credit())
        self._sent = Pop(asked, self._reserve(wanted), wanted, self.qos.take_done())
        try:
            connection.send_command(*self._popping.command(*self._pop_call(self._sent)))
        except BaseException:
            self._give_up_reply()
            raise
        self._in_poll = connection
        self._brpop_sent_at = monotonic()

    def _credit(self) -> int:
        if "can_consume" in self.qos.__dict__:
            # The worker counts by itself (`worker_disable_prefetch`): it may take one, then asks.
            return 1
        free = self.qos.can_consume_max_estimate()
        return BATCH if free is None else max(1, min(free, BATCH))

    def _reserve(self, count: int) -> int:
        """The first of `count` serial numbers, which nothing else will be recorded under.

        A pop whose answer is lost may have recorded messages: no other may write over them.
        """
        first, self._serial = self._serial, self._serial + count
        return first

    def _pop_call(self, pop: Pop) -> tuple[list[str], list[Argument]]:
        lists = [self._q_for_pri(queue, step) for queue, step in pop.asked]
        keys = self.full(self.unacked_key, self.unacked_index_key, self.heartbeats_key, *lists)
        suffixes = [suffix_of(queue) for queue, _ in pop.asked]
        owner = [self.owner, self.description]
        return keys, [*owner, pop.first, pop.wanted, len(lists), *suffixes, *pop.tags]

    # -- reading its answer --------------------------------------------------------------------

    def _brpop_read(self, **options: Any) -> bool:
        """Read the answer of a pop, or the news that a list was filled."""
        connection = self.client.connection
        if self._wake.waiting:
            return self._read_news(connection)
        try:
            answer = self._read_reply(connection)
        except ResponseError as error:
            self._give_up_reply()
            self._wait_refused(connection, error)
            raise Empty from error
        except BaseException:
            self._give_up_reply()
            raise
        self.refusals.worked(_POP)
        sent, self._sent = self._sent, Pop()
        batch = self._batch(sent, answer)
        if not batch:
            self._rest(connection)
            raise Empty
        self._in_poll = None
        self._brought.extend(batch)
        while self._brought:
            self._deliver_one(self._brought.popleft())
        return True

    def _read_reply(self, connection: Any) -> Any:
        try:
            return connection.read_response()
        except NoScriptError:
            call = self._popping.command(*self._pop_call(self._sent), known=False)
            connection.send_command(*call)
            return self._read_reply(connection)
        except ResponseError:
            raise
        except self.connection_errors:
            connection.disconnect()
            raise

    def _wait_refused(self, connection: Any, error: ResponseError) -> None:
        """Pop nothing for a while; what runs goes on, and so do the acknowledgements.

        A replica's refusal is a lost connection: the consumer connects anew, to the new primary.
        """
        if is_of_replica(error):
            log.warning("Redis refuses to pop: %s", error, extra={"action": "pop_refused"})
            connection.disconnect()
            raise RedisConnectionError(f"Redis refuses to pop: {error}") from error
        wait_s = self.tolerate(_POP, error)
        self._in_poll = connection
        self._wake.wait(monotonic(), wait_s)

    def _give_up_reply(self) -> None:
        """The pop's answer will not come: its acknowledgements are sent again."""
        self._in_poll = None
        self._wake.waiting = False
        self.qos.undo(self._sent.tags)
        self._sent = Pop()

    def _batch(self, sent: Pop, answer: list[Any]) -> list[Found]:
        """The messages of a pop's answer; a list that cannot be read keeps no other waiting."""
        batch, unread = sent.read(self.owner, answer)
        if not self._order.rotates:
            for found in batch:
                self._queue_cycle.rotate(found.queue)
        if unread or self._unread:
            errors = {self._q_for_pri(one.queue, one.step): one.error for one in unread}
            self._note_unread(errors, asked_all=len(batch) < sent.wanted)
        return batch

    def _note_unread(self, errors: dict[str, str], *, asked_all: bool) -> None:
        for key, error in errors.items():
            # Asked for at every pop, explained only where that is news.
            if not self.refusals.waits_s(_unread(key)):
                self.tolerate(_unread(key), ResponseError(error), key)
        if asked_all:
            for key in self._unread - errors.keys():
                self.refusals.worked(_unread(key))
            self._unread.clear()
        self._unread |= errors.keys()

    def _deliver_one(self, found: Found) -> None:
        if found.queue in self._no_ack_queues:
            self.acknowledge([found.tag])
        message = message_of(found.raw, found.tag, found.queue)
        self.connection._deliver(message, found.queue)

    # -- waiting -------------------------------------------------------------------------------

    def _rest(self, connection: Any) -> None:
        """Nothing was there: keep the connection in the poll until the server announces more."""
        self._wake.wait(monotonic())
        if connection.can_read(timeout=0):
            # The news came in the same packet as the answer; the socket will not wake us again.
            self.ask_again()

    def _read_news(self, connection: Any) -> bool:
        try:
            connection.read_response(push_request=True)
        except self.connection_errors:
            connection.disconnect()
            raise
        finally:
            self.ask_again()
        raise Empty

    def ask_again(self) -> None:
        """Let the next tick of the loop send a pop."""
        self._wake.waiting = False
        self._in_poll = None
        self._flush_brpop_reauth()

    @property
    def polls(self) -> bool:
        """Whether the server refused to announce new messages, so that we must ask often."""
        return bool(self.active_queues) and self._wake.refused

    def ask_if_overdue(self) -> None:
        """Ask again after the longest wait, so that a dead connection is noticed."""
        self.listen_if_due()
        if self._wake.overdue(monotonic()):
            self.ask_again()

    # -- one message at a time -----------------------------------------------------------------

    def _get(self, queue: str) -> dict[str, Any]:
        """Take one message synchronously (`basic_get`), recorded in the same step."""
        pop = Pop([(queue, step) for step in self.priority_steps], self._reserve(1), 1)
        client = self._create_client()
        self.has_beaten = True
        try:
            answer = self._popping(self.plain(client), *self._pop_call(pop))
        except ResponseError as error:
            self.refuse(error)
        self._maybe_update_queues_expire(client, queue)
        batch = self._batch(pop, answer)
        if not batch:
            raise Empty
        self.beat()
        return message_of(batch[0].raw, batch[0].tag, queue)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Kombu's `basic_get`; without acknowledgements the message is acknowledged at once."""
        message = super().basic_get(queue, no_ack=no_ack, **kwargs)
        if message is not None and no_ack:
            self.acknowledge([message.delivery_tag])
        return message

    # -- closing -------------------------------------------------------------------------------

    def close(self) -> None:
        """Return what is out, sign off and let every connection go, in any state and once.

        kombu's asks the server in the middle of it: an error there leaves the rest open, and the
        next `close` meets a connection that has lost its address.
        """
        if self._closing:
            return
        self._closing = True
        self._at_exit.cancel()
        try:
            leave_server(self)
        finally:
            self._give_up_reply()
            self._brought.clear()
            self.qos.forget()
            self.auto_delete_queues.clear()
            super().close()

    def settle_pop(self) -> None:
        """Wait for the answer of a pop that is on its way, and return what it brings as it came.

        No consumer is given it: its channel is about to end.
        """
        if self._in_poll and not self._wake.waiting:
            try:
                self._brought.extend(self._last_answer())
            finally:
                # Where it did not come, its acknowledgements are sent again.
                self._give_up_reply()
        while self._brought:
            # The youngest first: each becomes the next of its queue.
            self.qos.hand_back(self._brought[-1].tag)
            self._brought.pop()

    def _last_answer(self) -> list[Found]:
        connection = self.client.connection
        longest_s = SETTLE_S if self.socket_timeout is None else self.socket_timeout
        if not connection.can_read(timeout=longest_s):
            raise RedisTimeoutError(f"no answer to a pop within {longest_s:g} s")
        answer = self._read_reply(connection)
        sent, self._sent = self._sent, Pop()
        return self._batch(sent, answer)

    def basic_cancel(self, consumer_tag: str) -> Any:
        """Cancel; while the channel closes at once, where kombu would wait for the end of a read.

        By then the channel has no connection any more.
        """
        if self._closing:
            return self._basic_cancel(consumer_tag)
        return super().basic_cancel(consumer_tag)

    def _unsubscribe_from(self, queue: str) -> None:
        # The end of the connection ends its subscriptions.
        if not self._closing:
            super()._unsubscribe_from(queue)


def _unread(key: str) -> str:
    return f"the list {key!r} not read"


def _options(kombus: tuple[str, ...]) -> tuple[str, ...]:
    """The transport options of kombu's channel and ours.

    `ack_emulation` is not among them: what is popped is recorded, whatever it says.
    """
    own = ("heartbeats_key", "fairness", "burst")
    return (*(name for name in kombus if name != "ack_emulation"), *own)


class Channel(_AtomicChannel):
    """For one Redis or Valkey, plain or TLS."""

    from_transport_options = _options(kombu_redis.Channel.from_transport_options)


class SentinelChannel(_AtomicChannel, kombu_redis.SentinelChannel):  # type: ignore[misc]
    """For a primary that Sentinel names."""

    from_transport_options = _options(kombu_redis.SentinelChannel.from_transport_options)
