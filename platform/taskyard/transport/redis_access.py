"""The Redis server of one channel: full key names, and what to do when Redis refuses."""

from __future__ import annotations

import logging
from typing import Any, NoReturn

import redis
from redis.exceptions import ResponseError

from taskyard.store import WrongKeyType, is_of_replica, named
from taskyard.wire.failure_backoff import FailureBackoff

__all__ = ["Server"]


class Server:
    """The Redis server as a channel and its parts use it; `channel` is kombu's."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.backoff = FailureBackoff()

    def plain(self, client: Any) -> Any:
        """Return a client of the same pool that does not change names.

        kombu's prefixing client knows only the first key of a script.
        """
        if not self._channel.global_keyprefix:
            return client
        return redis.Redis(connection_pool=client.connection_pool)

    def full(self, *names: str) -> list[str]:
        """Return names as Redis has them, with the prefix of the channel."""
        prefix = self._channel.global_keyprefix
        return [prefix + name for name in names]

    def acknowledge(self, tags: list[str]) -> None:
        """Remove messages from the unacknowledged ones, in one round trip."""
        channel = self._channel
        with channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
            pipe.hdel(channel.unacked_key, *tags)
            pipe.zrem(channel.unacked_index_key, *tags)
            try:
                pipe.execute()
            except ResponseError as error:
                self.refuse(error)

    # -- failures ------------------------------------------------------------------------------

    def explained(self, error: ResponseError, *lists: str) -> ResponseError:
        """Return `error`, or an error that names the key with a wrong type."""
        channel = self._channel
        hashes = dict.fromkeys((channel.unacked_key, channel.heartbeats_key), "hash")
        expected = {**hashes, channel.unacked_index_key: "zset", **dict.fromkeys(lists, "list")}
        full = dict(zip(self.full(*expected), expected.values(), strict=True))
        with channel.conn_or_acquire() as client:
            return named(self.plain(client), error, full)

    def refuse(self, error: ResponseError, *lists: str) -> NoReturn:
        """Raise `error`, or an error that names the key with a wrong type."""
        named_error = self.explained(error, *lists)
        raise named_error from (None if named_error is error else error)

    def tolerate(self, what: str, error: ResponseError, *lists: str, item: str = "") -> float:
        """Log that Redis refused `what`, and return how many seconds to wait before the next try.

        The causes are a missing permission, a key of another type or a full server: Redis
        would refuse another connection too. If a replica refused, the error is raised,
        because then the primary must be found.
        """
        if is_of_replica(error):
            raise error
        cause = self.explained(error, *lists)
        action, facts = "redis_refuses", {}
        if isinstance(cause, WrongKeyType):
            action, facts = "key_misplaced", {"key": cause.key}
        return self.backoff.failed(
            what, cause, action=action, item=item, facts=facts, level=logging.ERROR
        )
