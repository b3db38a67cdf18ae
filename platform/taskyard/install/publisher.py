"""Publishing into the lists of an app's own Redis broker, with the options of its transport."""

from __future__ import annotations

import redis

from taskyard.broker import RedisPublisher
from taskyard.broker.foreign import own_priority
from taskyard.install.layout import Layout
from taskyard.settings import Settings
from taskyard.wire.letters import RawMessage

__all__ = ["AppRedisPublisher"]


class AppRedisPublisher(RedisPublisher):
    """Knows `priority_steps`, `sep` and `global_keyprefix` of `broker_transport_options`."""

    def __init__(
        self, settings: Settings, layout: Layout, client: redis.Redis | None = None
    ) -> None:
        super().__init__(settings, client)
        self._layout = layout

    def _own_step(self, message: RawMessage) -> int:
        return self._layout.step(own_priority(message))

    def _list_key(self, name: str, step: int) -> str:
        return self._layout.key(name, step)
