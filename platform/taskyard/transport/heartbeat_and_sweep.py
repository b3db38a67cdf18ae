"""Write a consumer's heartbeat, and find the messages of consumers that are dead."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from time import monotonic
from typing import Any, Final

from redis.exceptions import ResponseError

from taskyard.clock import us_of
from taskyard.store import SIGNED_OFF, Script, beat
from taskyard.transport.owner_descriptions import HEARTBEAT_S, OWNER_TTL_S, Swept, describe
from taskyard.transport.redis_access import Server

__all__ = ["Ownership"]

_SWEEP_INTERVAL_MS: Final = 900
_BEAT: Final = (
    "the Redis consumer's heartbeat was not written (after 10 s without one, other "
    "workers take its messages back)"
)
_SWEEP: Final = "the search for messages of dead consumers failed"


class Ownership:
    """The owner of a channel's messages, which writes a heartbeat every two seconds."""

    def __init__(self, channel: Any, server: Server) -> None:
        self._channel, self._server = channel, server
        self.name = f"{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:12]}"
        self.has_beaten = False
        self.script = Script.of("taskyard.transport", "sweep")
        self._beaten_at = float("-inf")
        self._described: tuple[list[str], str] = ([], "")

    @property
    def description(self) -> str:
        """Return what sweeps and operators need to know about this owner.

        That is the keys of its messages, and the queues that it reads.
        """
        channel = self._channel
        queues = sorted(channel.active_queues)
        if not self._described[1] or self._described[0] != queues:
            unacked, index = self._server.full(channel.unacked_key, channel.unacked_index_key)
            text = describe(unacked, index, channel.sep, channel.priority_steps, queues)
            self._described = queues, text
        return self._described[1]

    def beat(self) -> None:
        """Write this owner's heartbeat.

        `OWNER_TTL_S` after the last heartbeat, other workers take the owner's messages
        back.
        """
        channel, server = self._channel, self._server
        try:
            self.has_beaten = True
            (key,) = server.full(channel.heartbeats_key)
            with channel.conn_or_acquire() as client:
                beat(server.plain(client), key, self.name, self.description)
        except ResponseError as error:
            # Tried again with the next beat: an owner without a heartbeat loses its messages.
            server.tolerate(_BEAT, error)
        else:
            server.backoff.succeeded(_BEAT)
        self._beaten_at = monotonic()

    def beat_if_late(self) -> None:
        """Write the heartbeat if a pause delayed it.

        Messages that are popped now must not be returned as those of a dead owner.
        """
        if monotonic() - self._beaten_at > 2 * HEARTBEAT_S:
            self.beat()

    def sweep(self, limit: int, visibility_timeout_s: float) -> Iterator[Swept]:
        """Find messages that must return to their queues.

        All workers together sweep at most once a second.
        """
        channel, server = self._channel, self._server
        if server.backoff.waits_s(_SWEEP):
            return
        names = (channel.unacked_key, channel.unacked_index_key, channel.heartbeats_key)
        keys = server.full(*names, channel.unacked_mutex_key)
        silent_us = us_of(OWNER_TTL_S)
        arguments = [silent_us, visibility_timeout_s, limit, _SWEEP_INTERVAL_MS]
        try:
            with channel.conn_or_acquire() as client:
                found = self.script(server.plain(client), keys, arguments)
        except ResponseError as error:
            server.tolerate(_SWEEP, error)
            return
        server.backoff.succeeded(_SWEEP)
        for tag, stored, description in zip(found[::3], found[1::3], found[2::3], strict=True):
            yield Swept(tag.decode(), stored, description)

    def sign_off(self, client: Any) -> None:
        """Sign off, so that this owner counts as dead from now on.

        The next sweep returns the messages that it still holds.
        """
        value = f"{SIGNED_OFF} {self.description}"
        client.hset(self._channel.heartbeats_key, self.name, value)
