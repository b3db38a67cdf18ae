"""The channel of the Redis transport: kombu's methods, which call the objects that do the work.

`Popper` takes messages from the queues. `Ownership` marks the owner of messages that are delivered
and not acknowledged. `QoS` limits how many such messages there are and returns them, with its
`GiveBack` and its `AckRate`.
"""

from __future__ import annotations

from functools import cached_property
from multiprocessing.util import Finalize
from queue import Empty
from time import monotonic
from typing import Any, Final

from kombu.transport import redis as kombu_redis
from kombu.utils.scheduling import round_robin_cycle
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from taskyard.store import is_misplaced
from taskyard.transport.channel_close import leave_server
from taskyard.transport.heartbeat_and_sweep import Ownership
from taskyard.transport.pop_messages import Popper
from taskyard.transport.pop_request import Found, Order
from taskyard.transport.qos import QoS
from taskyard.transport.redis_access import Server
from taskyard.transport.stored_messages import message_of

__all__ = ["Channel", "SentinelChannel"]

_LISTEN: Final = "the subscription to remote control commands and events failed"


class _Channel(kombu_redis.Channel):  # type: ignore[misc]
    """A kombu Redis channel, changed where Taskyard's transport differs from kombu's."""

    QoS = QoS
    fairness = 10
    burst = 1
    heartbeats_key = "taskyard:heartbeats"
    _closing = False
    _listen_again_at: float | None = None
    # kombu's constructor needs a client before any other method of ours has run.
    _cached: tuple[Any, Any] | None = None
    _making_pubsub = False
    _pubsub_pool: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._no_ack_queues: set[str] = set()
        self.server = Server(self)
        self.ownership = Ownership(self, self.server)
        self.pops = Popper(self, self.server, self.ownership)
        super().__init__(*args, **kwargs)
        # kombu's own shutdown would return messages through a connection that may have lost its
        # address, with a traceback at the end of the process.
        self._at_exit = Finalize(self, self.close, exitpriority=1)
        # kombu's strategies other than round robin need a fixed order.
        rotates = type(self._queue_cycle) is round_robin_cycle
        self.pops.order = Order(self.priority_steps, int(self.fairness), rotates=rotates)

    @property
    def in_loop(self) -> bool:
        """Return whether an event loop runs.

        Then acknowledgements may wait for its next tick.
        """
        return bool(self.connection.in_loop)

    # -- connections: one client for a pool, where kombu makes a new one for each command --------

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._create_client(asynchronous=True)
        pool = self.pool
        if self._cached is None or self._cached[0] is not pool:
            self._cached = (pool, super()._create_client())
        return self._cached[1]

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        if self.connection is None or self.connection.client is None:
            # For a late acknowledgement or publication kombu would raise an AttributeError.
            raise RedisConnectionError("the connection of this channel is closed; open another one")
        parameters: dict[str, Any] = super()._connparams(asynchronous=asynchronous)
        # Only the consuming connection gets pushed messages, which need protocol 3.
        parameters["protocol"] = 3 if asynchronous and not self._making_pubsub else 2
        return parameters

    @cached_property
    def subclient(self) -> Any:
        """Return the Redis client for subscriptions.

        The client has a pool of its own, because kombu reads subscriptions in protocol 2.
        """
        self._making_pubsub = True
        try:
            self._pubsub_pool = self._get_pool(asynchronous=True)
        finally:
            self._making_pubsub = False
        return self.Client(connection_pool=self._pubsub_pool).pubsub()

    def _disconnect_pools(self) -> None:
        super()._disconnect_pools()
        self._cached = None
        if self._pubsub_pool is not None:
            self._pubsub_pool.disconnect()
            self._pubsub_pool = None

    # -- lists: a key of another type has a name, and every key its prefix -----------------------

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        try:
            super()._put(queue, message, **kwargs)
        except ResponseError as error:
            step = self._get_message_priority(message, reverse=False)
            self.server.refuse(error, self._q_for_pri(queue, step))

    def _get_message_priority(self, message: Any, reverse: bool = False) -> int:
        """Return the priority of a message as kombu reads it.

        An infinite priority (JSON's 1e999) counts as none, because kombu fails on it.
        """
        try:
            return int(super()._get_message_priority(message, reverse=reverse))
        except OverflowError:
            return int(super()._get_message_priority({}, reverse=reverse))

    def _size(self, queue: str) -> int:
        """Return how many messages wait in the queue; return 0 if Redis refuses to answer.

        An error here would end a worker that declares the queue.
        """
        what = f"Redis did not return the length of queue {queue!r} and it counts as 0"
        try:
            size = int(super()._size(queue))
        except ResponseError as error:
            # Code that pops from a key of another type, or writes to it, reports that key.
            if not is_misplaced(error):
                self.server.tolerate(what, error)
            return 0
        self.server.backoff.succeeded(what)
        return size

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        """Return whether messages wait in the queue.

        kombu's own code asks for keys without the prefix.
        """
        keys = self.server.full(*(self._q_for_pri(queue, step) for step in self.priority_steps))
        return bool(self.server.plain(self._create_client()).exists(*keys))

    def keep_newest(self, queue: str, limit: int) -> None:
        """Keep only the newest `limit` messages of a queue, among those without a priority."""
        server = self.server
        server.plain(self._create_client()).ltrim(server.full(queue)[0], 0, limit - 1)

    # -- subscriptions for remote control and events; if Redis refuses one, jobs continue ---------

    def _receive(self) -> Any:
        try:
            return super()._receive()
        except ResponseError as error:
            # `_in_listen` stays: otherwise kombu would subscribe with the next tick.
            self._listen_again_at = monotonic() + self.server.tolerate(_LISTEN, error)
            raise Empty from error

    def _handle_message(self, client: Any, r: Any) -> Any:
        if r[0] in (b"psubscribe", "psubscribe"):
            self.server.backoff.succeeded(_LISTEN)
        return super()._handle_message(client, r)

    def listen_if_due(self) -> None:
        """Plan the subscription for the next tick, if the wait after a refusal is over."""
        if self._listen_again_at is not None and monotonic() >= self._listen_again_at:
            self._listen_again_at = None
            self._in_listen = None

    # -- consuming -----------------------------------------------------------------------------

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume a queue; without acknowledgements, each message is acknowledged on delivery."""
        if no_ack:
            self._no_ack_queues.add(queue)
        else:
            self._no_ack_queues.discard(queue)
        result = super().basic_consume(queue, no_ack, *args, **kwargs)
        if self.active_queues:
            self.ownership.beat()
        # Redis announces only the queues that the last pop has read.
        self.pops.wake.end_soon()
        return result

    def has_work(self) -> bool:
        """Return whether the channel consumes or holds messages.

        A channel that drains may hold some messages for hours.
        """
        # In this order: kombu makes a new set of the queues, and each tick asks several times.
        return self.qos.has_unsettled() or bool(self.active_queues)

    def _brpop_start(self, timeout: float | None = None) -> None:
        self.pops.send()

    def _brpop_read(self, **options: Any) -> bool:
        """Read an answer from the connection and deliver the messages in it.

        The answer is that of a pop, or the notice that a list was filled.
        """
        self.pops.read()
        brought = self.pops.brought
        while brought:
            if brought[0].queue not in self._active_queues:
                # Cancelled since the pop was sent, perhaps by the consumer of the last message.
                self.pops.return_brought(self._active_queues)
                continue
            self._deliver_one(brought.popleft())
        return True

    def _deliver_one(self, found: Found) -> None:
        if found.queue in self._no_ack_queues:
            self.server.acknowledge([found.tag])
        message = message_of(found.raw, found.tag, found.queue)
        self.connection._deliver(message, found.queue)

    def _get(self, queue: str) -> dict[str, Any]:
        """Take one message at once (`basic_get`), and record it in the same step."""
        client = self._create_client()
        found = self.pops.take_one(queue, client)
        self._maybe_update_queues_expire(client, queue)
        if found is None:
            raise Empty
        self.ownership.beat()
        return message_of(found.raw, found.tag, queue)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Take one message for kombu's `basic_get`.

        Without acknowledgements the message is acknowledged at once.
        """
        message = super().basic_get(queue, no_ack=no_ack, **kwargs)
        if message is not None and no_ack:
            self.server.acknowledge([message.delivery_tag])
        return message

    # -- closing -------------------------------------------------------------------------------

    def close(self) -> None:
        """Return the messages that are not acknowledged, then close every connection.

        It works in any state of the channel, and does its work once. kombu's code asks the
        server in the middle of the same work: an error there leaves the other connections
        open, and the next `close` finds a connection that has lost its address.
        """
        if self._closing:
            return
        self._closing = True
        self._at_exit.cancel()
        try:
            leave_server(self)
        finally:
            self.pops.give_up_reply()
            self.pops.brought.clear()
            self.qos.forget()
            self.auto_delete_queues.clear()
            super().close()

    def basic_cancel(self, consumer_tag: str) -> Any:
        """Cancel a consumer; while the channel closes, do it at once.

        kombu would wait for the end of a read, but the channel has no connection any more.
        """
        if self._closing:
            return self._basic_cancel(consumer_tag)
        return super().basic_cancel(consumer_tag)

    def _unsubscribe_from(self, queue: str) -> None:
        # The end of the connection ends its subscriptions.
        if not self._closing:
            super()._unsubscribe_from(queue)


def _options(kombus: tuple[str, ...]) -> tuple[str, ...]:
    """Return the transport options of kombu's channel and Taskyard's additional ones.

    The option `ack_emulation` is left out: what is popped is always recorded.
    """
    own = ("heartbeats_key", "fairness", "burst")
    return (*(name for name in kombus if name != "ack_emulation"), *own)


class Channel(_Channel):
    """The channel for a single Redis or Valkey server, plain or with TLS."""

    from_transport_options = _options(kombu_redis.Channel.from_transport_options)


class SentinelChannel(_Channel, kombu_redis.SentinelChannel):  # type: ignore[misc]
    """The channel for a Redis primary whose address comes from Sentinel."""

    from_transport_options = _options(kombu_redis.SentinelChannel.from_transport_options)
