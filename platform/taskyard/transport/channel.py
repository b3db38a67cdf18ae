"""The channel: pops batches atomically, remembers who owns what, waits without polling."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from queue import Empty
from time import monotonic
from typing import Any, Final

from kombu.transport import redis as kombu_redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from taskyard.store import Script
from taskyard.transport.order import Order
from taskyard.transport.qos import QoS
from taskyard.transport.stored import message_of, suffix_of
from taskyard.transport.wake import Wake

__all__ = ["BATCH", "HEARTBEAT_S", "OWNER_TTL_S", "Channel", "SentinelChannel"]

log = logging.getLogger(__name__)

# A pop takes at most this many messages, also where the prefetch count would allow more.
BATCH: Final = 32
OWNER_TTL_S: Final = 10
HEARTBEAT_S: Final = 2.0
_SWEEP_INTERVAL_MS: Final = 900
_TELL_AGAIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Sent:
    """A pop under way: the lists asked, the serial numbers reserved, the tags acknowledged."""

    asked: Sequence[tuple[str, int]] = ()
    first: int = 0
    wanted: int = 0
    tags: list[str] = field(default_factory=list)


class _AtomicChannel(kombu_redis.Channel):  # type: ignore[misc]
    """What our channels add to kombu's."""

    QoS = QoS
    owner_prefix = "taskyard:owner:"
    owners_key = "taskyard:owners"
    fairness = 10
    from_transport_options = (
        *kombu_redis.Channel.from_transport_options,
        "owner_prefix",
        "owners_key",
        "fairness",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.owner = f"{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:12]}"
        self._serial = 0
        self._sent = _Sent()
        self._no_ack_queues: set[str] = set()
        self._wake = Wake()
        self._wrong_types: dict[str, float] = {}
        self._scripts = {name: _script(name) for name in ("pop", "restore", "sweep")}
        super().__init__(*args, **kwargs)
        self._order = Order(self.priority_steps, int(self.fairness))

    @property
    def in_loop(self) -> bool:
        """Whether an event loop ticks, so that acknowledgements may wait for its next tick."""
        return bool(self.connection.in_loop)

    # -- clients -------------------------------------------------------------------------------

    def _create_client(self, asynchronous: bool = False) -> Any:
        """One client for a pool, where kombu makes a new one for each command."""
        if asynchronous:
            return super()._create_client(asynchronous=True)
        pool = self.pool
        if self._cached is None or self._cached[0] is not pool:
            self._cached = (pool, super()._create_client())
        return self._cached[1]

    # kombu's constructor asks for a client before ours has run.
    _cached: tuple[Any, Any] | None = None

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        parameters: dict[str, Any] = super()._connparams(asynchronous=asynchronous)
        # Only the consuming connection takes pushed messages, which need protocol 3.
        parameters["protocol"] = 3 if asynchronous and not self._making_pubsub else 2
        return parameters

    _making_pubsub = False

    @cached_property
    def subclient(self) -> Any:
        """Subscriptions, on a pool of their own: kombu reads them as protocol 2."""
        self._making_pubsub = True
        try:
            self._pubsub_pool = self._get_pool(asynchronous=True)
        finally:
            self._making_pubsub = False
        return self.Client(connection_pool=self._pubsub_pool).pubsub()

    _pubsub_pool: Any = None

    def _disconnect_pools(self) -> None:
        super()._disconnect_pools()
        self._cached = None
        if self._pubsub_pool is not None:
            self._pubsub_pool.disconnect()
            self._pubsub_pool = None

    # -- consuming -----------------------------------------------------------------------------

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

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Send the next pop, together with the acknowledgements that are due."""
        queues = self.active_queues
        if not queues:
            return
        connection = self.client.connection
        self._wake.prepare(connection)
        asked, wanted = self._order.next(queues, self._credit())
        self._sent = _Sent(asked, self._reserve(wanted), wanted, self.qos.take_done())
        try:
            connection.send_command("EVALSHA", *self._pop_arguments(self._sent))
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

    def _pop_arguments(self, pop: _Sent) -> list[Any]:
        keys = [self._q_for_pri(queue, step) for queue, step in pop.asked]
        names = [self.unacked_key, self.unacked_index_key, *keys]
        prefixed = [self.global_keyprefix + name for name in names]
        suffixes = [suffix_of(queue) for queue, _ in pop.asked]
        head = [self._scripts["pop"].sha, len(prefixed), *prefixed]
        return [*head, self.owner, pop.first, pop.wanted, len(keys), *suffixes, *pop.tags]

    def _brpop_read(self, **options: Any) -> bool:
        """Read the answer of a pop, or the news that a list was filled."""
        connection = self.client.connection
        if self._wake.waiting:
            return self._read_news(connection)
        try:
            found = self._read_reply(connection)
        except BaseException:
            self._give_up_reply()
            raise
        sent, self._sent = self._sent, _Sent()
        batch = self._batch(sent, found)
        if not batch:
            self._rest(connection)
            raise Empty
        self._in_poll = None
        for queue, tag, raw in batch:
            self._deliver_one(queue, tag, raw)
        return True

    def _read_reply(self, connection: Any) -> Any:
        try:
            return connection.read_response()
        except NoScriptError:
            connection.send_command("SCRIPT", "LOAD", self._scripts["pop"].source)
            connection.read_response()
            connection.send_command("EVALSHA", *self._pop_arguments(self._sent))
            return connection.read_response()
        except ResponseError as error:
            # Read-only after a failover, a full disk, a withdrawn permission: it may pass, so the
            # consumer reconnects (through Sentinel to the new primary) instead of ending.
            log.warning("Redis refuses to pop: %s", error, extra={"action": "pop_refused"})
            connection.disconnect()
            raise RedisConnectionError(f"Redis refuses to pop: {error}") from error
        except self.connection_errors:
            connection.disconnect()
            raise

    def _give_up_reply(self) -> None:
        """The pop's answer will not come: its acknowledgements are sent again."""
        self._in_poll = None
        self._wake.waiting = False
        self.qos.undo(self._sent.tags)
        self._sent = _Sent()

    def _rest(self, connection: Any) -> None:
        """Nothing was there: keep the connection in the poll until it is told of more."""
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
        """Whether the server refused to tell of new messages, so that somebody must ask often."""
        return bool(self.active_queues) and self._wake.refused

    def ask_if_overdue(self) -> None:
        """Ask again after the longest wait, so that a dead connection is noticed."""
        if self._wake.overdue(monotonic()):
            self.ask_again()

    def _batch(self, sent: _Sent, found: list[Any]) -> list[tuple[str, str, bytes]]:
        """(queue, tag, raw message) of a pop's answer; a list that is none is told, not fatal."""
        batch: list[tuple[str, str, bytes]] = []
        for place, raw in zip(found[::2], found[1::2], strict=True):
            queue, step = sent.asked[abs(place) - 1]
            if place > 0:
                batch.append((queue, f"{self.owner}:{sent.first + len(batch)}", raw))
            else:
                self._tell_wrong_type(self._q_for_pri(queue, step), raw.decode())
        return batch

    def _size(self, queue: str) -> int:
        """How many messages wait; declaring a queue asks, which must not end a worker."""
        try:
            return int(super()._size(queue))
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            self._tell_wrong_type(queue, str(error))
            return 0

    def _tell_wrong_type(self, key: str, error: str) -> None:
        now = monotonic()
        if now >= self._wrong_types.get(key, 0.0):
            self._wrong_types[key] = now + _TELL_AGAIN_S
            log.error(
                "the key %r of a queue holds something else, its messages wait: %s",
                key,
                error,
                extra={"action": "queue_key_wrong_type", "key": key},
            )

    def _deliver_one(self, queue: str, tag: str, raw: bytes) -> None:
        if queue in self._no_ack_queues:
            self.acknowledge([tag])
        self.connection._deliver(message_of(raw, tag, queue), queue)

    def _get(self, queue: str) -> dict[str, Any]:
        """Take one message synchronously (`basic_get`), recorded in the same step."""
        asked = [(queue, step) for step in self.priority_steps]
        pop = _Sent(asked, self._reserve(1), 1)
        arguments = self._pop_arguments(pop)[2:]
        count = len(asked) + 2
        found = self._run("pop", self._create_client(), arguments[:count], arguments[count:])
        batch = self._batch(pop, found)
        if not batch:
            raise Empty
        self.beat()
        _, tag, raw = batch[0]
        return message_of(raw, tag, queue)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Kombu's `basic_get`; without acknowledgements the message is acknowledged at once."""
        message = super().basic_get(queue, no_ack=no_ack, **kwargs)
        if message is not None and no_ack:
            self.acknowledge([message.delivery_tag])
        return message

    # -- what is out ---------------------------------------------------------------------------

    def acknowledge(self, tags: list[str]) -> None:
        """Remove messages from the unacknowledged ones; one round trip."""
        with self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
            pipe.hdel(self.unacked_key, *tags)
            pipe.zrem(self.unacked_index_key, *tags)
            pipe.execute()

    def put_back(self, client: Any, tag: str, body: bytes, list_key: str, place: str) -> None:
        """Move one message from the unacknowledged ones to a list: as the next or the last."""
        names = [self.unacked_key, self.unacked_index_key, list_key]
        keys = [self.global_keyprefix + name for name in names]
        self._run("restore", client, keys, [tag, body, place])

    def queues_of(self, exchange: str, routing_key: str) -> list[str]:
        """Where a message belongs; without its binding, the queue its routing key names."""
        if not exchange:
            return [routing_key]
        return list(self._lookup(exchange, routing_key)) or [routing_key]

    def sweep(self, limit: int, visibility_timeout_s: float) -> Iterator[tuple[str, bytes]]:
        """(tag, stored message) of what must go back; at most one sweeper a second in a fleet."""
        mutex = self.unacked_mutex_key
        names = [self.unacked_key, self.unacked_index_key, self.owners_key, mutex]
        keys = [self.global_keyprefix + name for name in names]
        prefix = self.global_keyprefix + self.owner_prefix
        arguments = [prefix, visibility_timeout_s, limit, _SWEEP_INTERVAL_MS]
        with self.conn_or_acquire() as client:
            found = self._run("sweep", client, keys, arguments)
        for tag, stored in zip(found[::2], found[1::2], strict=True):
            yield tag.decode(), stored

    def beat(self) -> None:
        """Say that this owner lives; what a silent one holds goes back after `OWNER_TTL_S`."""
        with self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
            pipe.set(self.owner_prefix + self.owner, 1, ex=OWNER_TTL_S)
            pipe.sadd(self.owners_key, self.owner)
            pipe.execute()

    def close(self) -> None:
        """Give back what is out and sign off."""
        was_closed = self.closed
        if self._wake.waiting:
            # Nothing is on its way: kombu would wait here for an answer.
            self.ask_again()
        # Made before, since a closed channel has no connection left to make one from.
        client = self._create_client() if not was_closed and self._serial else None
        super().close()
        if client is not None:
            client.delete(self.owner_prefix + self.owner)
            client.connection_pool.disconnect()

    def _run(self, name: str, client: Any, keys: list[str], arguments: list[Any]) -> Any:
        # The prefixing client of kombu knows only the first key of a script: all have theirs here.
        plain = self._plain_client(client)
        return self._scripts[name](plain, keys, arguments)

    def _plain_client(self, client: Any) -> Any:
        if not self.global_keyprefix:
            return client
        import redis  # noqa: PLC0415 - only for prefixed installations

        return redis.Redis(connection_pool=client.connection_pool)


class Channel(_AtomicChannel):
    """For one Redis or Valkey, plain or TLS."""


class SentinelChannel(_AtomicChannel, kombu_redis.SentinelChannel):  # type: ignore[misc]
    """For a primary that Sentinel names."""

    from_transport_options = (
        *kombu_redis.SentinelChannel.from_transport_options,
        "owner_prefix",
        "owners_key",
        "fairness",
    )


def _script(name: str) -> Script:
    folder = resources.files("taskyard.transport")
    return Script(folder.joinpath(f"scripts/{name}.lua").read_text("utf-8"))
