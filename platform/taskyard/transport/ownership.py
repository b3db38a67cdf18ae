"""What is out: whose it is, how it is acknowledged, and how it goes back."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Iterator
from time import monotonic
from typing import Any, Final, NoReturn

from redis.exceptions import ResponseError

from taskyard.clock import us_of
from taskyard.store import SIGNED_OFF, Script, WrongKeyType, beat, is_of_replica, named
from taskyard.transport.clients import PooledChannel
from taskyard.transport.owners import HEARTBEAT_S, OWNER_TTL_S, Swept, describe
from taskyard.wire.refusals import Refusals

__all__ = ["HoldingChannel"]

_SWEEP_INTERVAL_MS: Final = 900
_BEAT: Final = "heartbeat not written"
_SWEEP: Final = "the messages of dead consumers not looked for"


class HoldingChannel(PooledChannel):
    """A channel whose messages have an owner, which says every two seconds that it lives."""

    heartbeats_key = "taskyard:heartbeats"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.owner = f"{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:12]}"
        self.refusals = Refusals()
        self.has_beaten = False
        self._restoring, self._sweeping = (
            Script.of("taskyard.transport", name) for name in ("restore", "sweep")
        )
        self._beaten_at = float("-inf")
        self._described: tuple[list[str], str] = ([], "")
        super().__init__(*args, **kwargs)

    # -- acknowledging and giving back ---------------------------------------------------------

    def acknowledge(self, tags: list[str]) -> None:
        """Remove messages from the unacknowledged ones; one round trip."""
        with self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
            pipe.hdel(self.unacked_key, *tags)
            pipe.zrem(self.unacked_index_key, *tags)
            try:
                pipe.execute()
            except ResponseError as error:
                self.refuse(error)

    def put_back(self, client: Any, tag: str, body: bytes, lists: list[str], place: str) -> None:
        """Move one message from the unacknowledged ones to lists: as the next or the last.

        Raises `WrongKeyType` where one of them is no list; the message stays unacknowledged then.
        """
        keys = self.full(self.unacked_key, self.unacked_index_key, *lists)
        try:
            self._restoring(self.plain(client), keys, [tag, body, place])
        except ResponseError as error:
            self.refuse(error, *lists)

    def queues_of(self, exchange: str, routing_key: str) -> list[str]:
        """Where a message belongs; without its binding, the queue its routing key names."""
        if not exchange:
            return [routing_key]
        return sorted(self._lookup(exchange, routing_key)) or [routing_key]

    def explained(self, error: ResponseError, *lists: str) -> ResponseError:
        """`error`, or one that names the key which is of another type than ours."""
        hashes = dict.fromkeys((self.unacked_key, self.heartbeats_key), "hash")
        expected = {**hashes, self.unacked_index_key: "zset", **dict.fromkeys(lists, "list")}
        full = dict(zip(self.full(*expected), expected.values(), strict=True))
        with self.conn_or_acquire() as client:
            return named(self.plain(client), error, full)

    def refuse(self, error: ResponseError, *lists: str) -> NoReturn:
        """Raise `error`, or one that names the key."""
        named_error = self.explained(error, *lists)
        raise named_error from (None if named_error is error else error)

    # -- owners --------------------------------------------------------------------------------

    @property
    def description(self) -> str:
        """What sweeps and operators read of this owner: the keys of what it holds, its queues."""
        queues = sorted(self.active_queues)
        if not self._described[1] or self._described[0] != queues:
            unacked, index = self.full(self.unacked_key, self.unacked_index_key)
            text = describe(unacked, index, self.sep, self.priority_steps, queues)
            self._described = queues, text
        return self._described[1]

    def beat(self) -> None:
        """Say that this owner lives; without that, what it holds goes back after `OWNER_TTL_S`."""
        try:
            self.has_beaten = True
            (key,) = self.full(self.heartbeats_key)
            with self.conn_or_acquire() as client:
                beat(self.plain(client), key, self.owner, self.description)
        except ResponseError as error:
            # Tried again with the next beat: an owner without a heartbeat loses what it holds.
            self.tolerate(_BEAT, error)
        else:
            self.refusals.worked(_BEAT)
        self._beaten_at = monotonic()

    def beat_if_late(self) -> None:
        """After a standstill: what is popped now must not go back as a dead owner's."""
        if monotonic() - self._beaten_at > 2 * HEARTBEAT_S:
            self.beat()

    def sweep(self, limit: int, visibility_timeout_s: float) -> Iterator[Swept]:
        """What must go back; at most one sweeper a second in a fleet."""
        if self.refusals.waits_s(_SWEEP):
            return
        names = (self.unacked_key, self.unacked_index_key, self.heartbeats_key)
        keys = self.full(*names, self.unacked_mutex_key)
        silent_us = us_of(OWNER_TTL_S)
        arguments = [silent_us, visibility_timeout_s, limit, _SWEEP_INTERVAL_MS]
        try:
            with self.conn_or_acquire() as client:
                found = self._sweeping(self.plain(client), keys, arguments)
        except ResponseError as error:
            self.tolerate(_SWEEP, error)
            return
        self.refusals.worked(_SWEEP)
        for tag, stored, description in zip(found[::3], found[1::3], found[2::3], strict=True):
            yield Swept(tag.decode(), stored, description)

    def tolerate(self, what: str, error: ResponseError, *lists: str, item: str = "") -> float:
        """Go on without `what`, which is refused; how long to wait before it is tried again.

        A permission, a key of another type, a full server: another connection would be refused as
        well. Raises the error where it is a replica's: there is a primary to be found.
        """
        if is_of_replica(error):
            raise error
        cause = self.explained(error, *lists)
        action, facts = "redis_refuses", {}
        if isinstance(cause, WrongKeyType):
            action, facts = "key_misplaced", {"key": cause.key}
        return self.refusals.refused(
            what, cause, action=action, item=item, facts=facts, level=logging.ERROR
        )

    def sign_off(self, client: Any) -> None:
        """Count as dead from now on: the next sweep gives back what is out all the same."""
        client.hset(self.heartbeats_key, self.owner, f"{SIGNED_OFF} {self.description}")
