"""A bootstep of every worker: what it holds beyond its prefetch count goes back when jobs get slow.

While jobs end quickly the transport takes more than the processes run. When then one runs for
minutes, those behind it would wait with it, whoever else is idle.
"""

from __future__ import annotations

from typing import Any, Final

from celery import bootsteps
from celery.worker import state as worker_state

from taskyard.transport import QoS
from taskyard.wire.logs import logger

__all__ = ["INTERVAL_S", "OverPrefetch"]

log = logger(__name__)

INTERVAL_S: Final = 0.5


class OverPrefetch(bootsteps.StartStopStep):  # type: ignore[misc]
    """Gives back, newest first, what no process has begun; it is no redelivery."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._entry: Any = None

    def start(self, consumer: Any) -> None:
        """Start the timer, where our transport serves a pool with an event loop."""
        semaphore = consumer.controller.semaphore
        qos = getattr(consumer.task_consumer.channel, "qos", None)
        if semaphore is not None and isinstance(qos, QoS):
            self._entry = consumer.timer.call_repeatedly(
                INTERVAL_S, self._give_back, (consumer, semaphore)
            )

    def stop(self, consumer: Any) -> None:
        """Stop the timer."""
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None

    def _give_back(self, consumer: Any, semaphore: Any) -> None:
        over_prefetch = consumer.task_consumer.channel.qos.over_prefetch()
        # kombu has no other name for those who wait for a process, in their order.
        waiting = semaphore._waiting
        count = min(over_prefetch, len(waiting))
        if count == 0:
            return
        log.info(
            "%d messages go back to their queue: the jobs before them take longer than those that "
            "were taken so far",
            count,
            extra={"action": "surplus_returned", "count": count},
        )
        for _ in range(count):
            _, (request, *_), _ = waiting.pop()
            worker_state.task_ready(request)
            message = request.message
            message.channel.qos.mark_not_started(message.delivery_tag)
            message.requeue()
