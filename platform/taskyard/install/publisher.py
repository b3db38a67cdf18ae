"""Publishing into the lists of an app's own Redis broker, with the options of its transport."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskyard.broker import RedisPublisher
from taskyard.broker.envelope import SEPARATOR
from taskyard.broker.foreign import own_priority
from taskyard.queues import URGENCY_STEPS
from taskyard.settings import Settings
from taskyard.wire.letters import RawMessage

__all__ = ["AppRedisPublisher"]


class AppRedisPublisher(RedisPublisher):
    """Knows `priority_steps`, `sep` and `global_keyprefix` of `broker_transport_options`."""

    def __init__(self, settings: Settings, options: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self._steps = tuple(options.get("priority_steps") or URGENCY_STEPS)
        self._separator = str(options.get("sep") or SEPARATOR)
        self._prefix = str(options.get("global_keyprefix") or "")

    def _own_step(self, message: RawMessage) -> int:
        below = [step for step in self._steps if step <= own_priority(message)]
        return int(max(below, default=self._steps[0]))

    def _list_key(self, name: str, step: int) -> str:
        suffix = f"{self._separator}{step}" if step else ""
        return f"{self._prefix}{name}{suffix}"
