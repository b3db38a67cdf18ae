"""What is out: whose it is, how it is acknowledged, and how it goes back."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from importlib import resources
from typing import Any, Final, NoReturn

from kombu.transport import redis as kombu_redis
from redis.exceptions import ResponseError

from taskyard.store import Script, is_misplaced, named
from taskyard.transport.clients import PooledChannel
from taskyard.transport.complaints import Complaints

__all__ = ["HEARTBEAT_S", "OWNER_TTL_S", "HoldingChannel", "script"]

OWNER_TTL_S: Final = 10
HEARTBEAT_S: Final = 2.0
_SWEEP_INTERVAL_MS: Final = 900


class HoldingChannel(PooledChannel):
    """A channel whose messages have an owner, which says every two seconds that it lives."""

    owner_prefix = "taskyard:owner:"
    owners_key = "taskyard:owners"
    from_transport_options = (
        *kombu_redis.Channel.from_transport_options,
        "owner_prefix",
        "owners_key",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.owner = f"{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:12]}"
        self.complaints = Complaints()
        self.has_beaten = False
        self._restoring, self._sweeping = script("restore"), script("sweep")
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

        Raises `Misplaced` where one of them is no list; the message stays unacknowledged then.
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
        ours = {self.unacked_key: "hash", self.unacked_index_key: "zset", self.owners_key: "set"}
        expected = {**ours, **dict.fromkeys(lists, "list")}
        full = dict(zip(self.full(*expected), expected.values(), strict=True))
        with self.conn_or_acquire() as client:
            return named(self.plain(client), error, full)

    def refuse(self, error: ResponseError, *lists: str) -> NoReturn:
        """Raise `error`, or one that names the key."""
        told = self.explained(error, *lists)
        raise told from (None if told is error else error)

    # -- owners --------------------------------------------------------------------------------

    def beat(self) -> None:
        """Say that this owner lives; what a silent one holds goes back after `OWNER_TTL_S`."""
        # It names its queues, so that an operator hears of those that nobody consumes.
        queues = "\n".join(sorted(self.active_queues)) or "1"
        try:
            with self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
                pipe.set(self.owner_prefix + self.owner, queues, ex=OWNER_TTL_S)
                pipe.sadd(self.owners_key, self.owner)
                self.has_beaten = True
                pipe.execute()
        except ResponseError as error:
            self.tolerate(error)

    def sweep(self, limit: int, visibility_timeout_s: float) -> Iterator[tuple[str, bytes]]:
        """(tag, stored message) of what must go back; at most one sweeper a second in a fleet."""
        mutex = self.unacked_mutex_key
        keys = self.full(self.unacked_key, self.unacked_index_key, self.owners_key, mutex)
        prefix = self.global_keyprefix + self.owner_prefix
        arguments = [prefix, visibility_timeout_s, limit, _SWEEP_INTERVAL_MS]
        try:
            with self.conn_or_acquire() as client:
                found = self._sweeping(self.plain(client), keys, arguments)
        except ResponseError as error:
            self.tolerate(error)
            return
        for tag, stored in zip(found[::2], found[1::2], strict=True):
            yield tag.decode(), stored

    def tolerate(self, error: ResponseError, *lists: str) -> None:
        """Tell of a key of another type than ours, and go on; raise anything else."""
        if not is_misplaced(error):
            raise error
        self.complaints.tell(self.explained(error, *lists))

    def sign_off(self, client: Any) -> None:
        """Take the heartbeat away: nothing of this owner is out any more."""
        client.delete(self.owner_prefix + self.owner)


def script(name: str) -> Script:
    """One of the transport's scripts."""
    folder = resources.files("taskyard.transport")
    return Script(folder.joinpath(f"scripts/{name}.lua").read_text("utf-8"))
