"""A bootstep of every worker: moves due messages from the delay store to their queues."""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

from celery import bootsteps
from redis.exceptions import RedisError

from taskyard.broker import PROMOTE_BATCH, RedisPublisher
from taskyard.wire.logs import logger

__all__ = ["INTERVAL_S", "Promoter"]

log = logger(__name__)

INTERVAL_S: Final = 0.2
_ROUNDS: Final = 20
# After a failure: asking five times a second would only fill the log.
_PAUSE_S: Final = 1.0


class Promoter(bootsteps.StartStopStep):  # type: ignore[misc]
    """Every `INTERVAL_S` at most 20 batches, so that a flood of retries cannot stop the loop."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._entry: Any = None
        self._quiet_until = float("-inf")

    def start(self, consumer: Any) -> None:
        """Start the timer."""
        publisher = consumer.app.taskyard.publisher
        if not isinstance(publisher, RedisPublisher):
            # RabbitMQ promotes by itself: its delay exchanges lead to the queues.
            return
        self._entry = consumer.timer.call_repeatedly(INTERVAL_S, self._promote, (publisher,))

    def stop(self, consumer: Any) -> None:
        """Stop the timer."""
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None

    def _promote(self, publisher: RedisPublisher) -> None:
        if monotonic() < self._quiet_until:
            return
        try:
            for _ in range(_ROUNDS):
                if publisher.promote() < PROMOTE_BATCH:
                    return
        except RedisError as error:
            self._quiet_until = monotonic() + _PAUSE_S
            log.warning(
                "delayed messages not promoted: %s", error, extra={"action": "promote_unreachable"}
            )
