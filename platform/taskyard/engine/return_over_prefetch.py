"""Return messages beyond the prefetch count to their queues when jobs become slow.

A bootstep of every worker. While jobs end quickly, the transport takes more messages than the
processes can run (`taskyard.transport.ack_rate`). If the next job runs for minutes, the messages
behind it would wait, although other workers are idle.
"""

from __future__ import annotations

from typing import Any, Final

from celery import bootsteps

from taskyard.engine.ports import Messages, WaitsFor, WayBack
from taskyard.wire.redacted_logs import logger

__all__ = ["INTERVAL_S", "OverPrefetch"]

log = logger(__name__)

INTERVAL_S: Final = 0.5


class OverPrefetch(bootsteps.StartStopStep):  # type: ignore[misc]
    """Returns messages that no process has begun, the newest first.

    They do not count as redelivered.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._entry: Any = None

    def start(self, consumer: Any) -> None:
        """Start the timer that returns messages to their queues."""
        messages = consumer.app.taskyard.ports.messages
        self._entry = consumer.timer.call_repeatedly(INTERVAL_S, _give_back, (messages,))

    def stop(self, consumer: Any) -> None:
        """Stop the timer that returns messages to their queues."""
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None


def _give_back(messages: Messages) -> None:
    over_prefetch = messages.over_prefetch()
    if over_prefetch == 0:
        return
    withdrawn = messages.withdraw(waiting_for=(WaitsFor.PROCESS,), most=over_prefetch)
    if not withdrawn:
        return
    log.info(
        "this worker returns %d waiting messages to their queues for other workers, because "
        "its running jobs take longer than earlier ones",
        len(withdrawn),
        extra={"action": "surplus_returned", "count": len(withdrawn)},
    )
    for held in withdrawn:
        messages.give_back(held, WayBack.AS_IT_CAME)
