"""Move due messages from the delay store to their queues: a bootstep of every worker."""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

from celery import bootsteps
from redis.exceptions import RedisError

from taskyard.broker import PROMOTE_BATCH, RedisPublisher
from taskyard.wire.failure_backoff import FailureBackoff

__all__ = ["INTERVAL_S", "Promoter"]

INTERVAL_S: Final = 0.2
_ROUNDS: Final = 20
_PROMOTE: Final = "due messages were not moved from the delay store to their queues"


class Promoter(bootsteps.StartStopStep):  # type: ignore[misc]
    """Moves due messages every `INTERVAL_S`.

    It moves at most 20 batches each time, so that many retries cannot stop the worker's loop.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._entry: Any = None
        self._quiet_until = float("-inf")
        self._backoff: FailureBackoff = consumer.app.taskyard.backoff

    def start(self, consumer: Any) -> None:
        """Start the timer that moves due messages."""
        publisher = consumer.app.taskyard.publisher
        if not isinstance(publisher, RedisPublisher):
            # RabbitMQ does this itself: its delay exchanges lead to the queues.
            return
        self._entry = consumer.timer.call_repeatedly(INTERVAL_S, self._promote, (publisher,))

    def stop(self, consumer: Any) -> None:
        """Stop the timer that moves due messages."""
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None

    def _promote(self, publisher: RedisPublisher) -> None:
        if monotonic() < self._quiet_until:
            return
        try:
            for _ in range(_ROUNDS):
                full = publisher.delay_store.promote() >= PROMOTE_BATCH
                self._backoff.succeeded(_PROMOTE)
                if not full:
                    return
        except RedisError as error:
            wait_s = self._backoff.failed(_PROMOTE, error, action="promote_unreachable")
            self._quiet_until = monotonic() + wait_s
