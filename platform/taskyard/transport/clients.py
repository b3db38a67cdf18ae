"""The connections of a channel: one client for each pool, pushed messages where they are read."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import redis
from kombu.transport import redis as kombu_redis
from redis.exceptions import ConnectionError as RedisConnectionError

__all__ = ["PooledChannel"]


class PooledChannel(kombu_redis.Channel):  # type: ignore[misc]
    """kombu's channel with one client for a pool, where kombu makes a new one for each command."""

    # kombu's constructor asks for a client before any other of ours has run.
    _cached: tuple[Any, Any] | None = None
    _making_pubsub = False
    _pubsub_pool: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._create_client(asynchronous=True)
        pool = self.pool
        if self._cached is None or self._cached[0] is not pool:
            self._cached = (pool, super()._create_client())
        return self._cached[1]

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        if self.connection is None or self.connection.client is None:
            # A late acknowledgement or publication: kombu would raise an AttributeError.
            raise RedisConnectionError("the connection of this channel was closed; open another")
        parameters: dict[str, Any] = super()._connparams(asynchronous=asynchronous)
        # Only the consuming connection takes pushed messages, which need protocol 3.
        parameters["protocol"] = 3 if asynchronous and not self._making_pubsub else 2
        return parameters

    @cached_property
    def subclient(self) -> Any:
        """Subscriptions, on a pool of their own: kombu reads them as protocol 2."""
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

    def plain(self, client: Any) -> Any:
        """A client of the same pool that leaves names as they are.

        kombu's prefixing client knows only the first key of a script.
        """
        if not self.global_keyprefix:
            return client
        return redis.Redis(connection_pool=client.connection_pool)

    def full(self, *names: str) -> list[str]:
        """Names as they stand in Redis, with the prefix of this channel."""
        return [self.global_keyprefix + name for name in names]
