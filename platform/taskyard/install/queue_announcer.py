"""Announce which queues a worker reads, and under which keys: a bootstep of installed workers.

The announcements have a thread of their own, because an observing worker must not wait for the
records in Redis.
"""

from __future__ import annotations

import threading
from typing import Any, Final

from celery import bootsteps

from taskyard.broker import RedisPublisher
from taskyard.install.announced_queues import RABBIT, AnnouncedQueue, AnnouncedQueues, broker_mark
from taskyard.install.fanout import is_bound_to_fanout
from taskyard.install.installed_context import InstalledContext
from taskyard.wire.redacted_logs import logger

__all__ = ["EVERY_S", "Announcer", "announce"]

log = logger(__name__)

EVERY_S: Final = 60.0
_ANNOUNCE: Final = (
    "the queues of this worker were not announced, so relay and reconciler may not know their keys"
)


class Announcer(bootsteps.StartStopStep):  # type: ignore[misc]
    """Announces the worker's queues at once and every `EVERY_S`.

    Queues may be added to a running worker.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._stop = threading.Event()

    def start(self, consumer: Any) -> None:
        """Start the thread that announces queues."""
        self._stop = threading.Event()
        threading.Thread(
            target=_repeat, args=(consumer, self._stop), name="taskyard-places", daemon=True
        ).start()

    def stop(self, consumer: Any) -> None:
        """Tell the thread to end, and do not wait for it."""
        self._stop.set()


def _repeat(consumer: Any, stop: threading.Event) -> None:
    backoff = consumer.app.taskyard.backoff
    while not stop.is_set():
        try:
            # A queue that a switch holds has workers all the same.
            read = [*consumer.task_consumer.queues, *consumer.held_queues.queues]
            announce(consumer.app.taskyard, _queue_names(read))
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker must not notice
            backoff.failed(_ANNOUNCE, error, action="places_not_told")
        else:
            backoff.succeeded(_ANNOUNCE)
        stop.wait(EVERY_S)


def _queue_names(queues: Any) -> list[str]:
    """Return the queues in which jobs wait.

    A queue of a fanout exchange is left out: it holds copies, and is soon deleted.
    """
    return [queue.name for queue in list(queues) if not is_bound_to_fanout(queue)]


def announce(yard: InstalledContext, queues: list[str]) -> None:
    """Store that workers of this app read `queues`; raises redis-py's errors."""
    if not yard.broker_supported:
        return
    publisher, namespace = yard.publisher, yard.given.namespace
    mark = RABBIT
    if isinstance(publisher, RedisPublisher):
        mark = broker_mark(publisher.client, namespace)
    now_us = yard.watching.now_us()
    AnnouncedQueues(yard.watching.client, namespace).report(
        AnnouncedQueue(queue, mark, yard.layout, now_us) for queue in queues
    )
