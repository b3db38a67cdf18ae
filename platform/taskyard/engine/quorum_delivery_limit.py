"""Publish a message again before a RabbitMQ quorum queue drops it for too many returns.

A quorum queue counts returned messages, and drops a message at its limit, which RabbitMQ 4 sets to
20 by default. A message that only waits for Redis or for its dead letter must not reach that limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from taskyard.broker import AmqpPublisher
from taskyard.engine.read_message import job_id_of
from taskyard.engine.strip_credentials import message_to_publish
from taskyard.engine.worker_context import WorkerContext
from taskyard.errors import PublishFailed
from taskyard.wire.redacted_logs import logger

__all__ = ["HELD_S", "RENEW_AT", "Returns"]

log = logger(__name__)

# Half of RabbitMQ's 20, since a worker that dies with the message, or loses its connection, counts
# too.
RENEW_AT: Final = 10
# Between two tries to publish what is held; each of them may take `publish_timeout_s`.
HELD_S: Final = 5.0

Later = Callable[[float, Callable[[], None]], object]


class Returns:
    """The messages that one worker returns too often.

    `later` is the worker's timer: it gets seconds, and what to do then.
    """

    def __init__(self, yard: WorkerContext, later: Later) -> None:
        self._yard, self._later = yard, later

    def watch(self, message: Any, queue: str | None) -> None:
        """Make a message of the broker's `queue` return by a new publication, if it returned often.

        The broker's own header `x-delivery-count` counts; without a known queue nothing
        changes.
        """
        count = (message.headers or {}).get("x-delivery-count")
        if queue is None or not isinstance(count, int) or count < RENEW_AT:
            return
        publisher = self._yard.publisher
        if not isinstance(publisher, AmqpPublisher):
            return  # The header may come from a client: only RabbitMQ's count is used.
        drop = message.reject_log_error

        def go_back(logger: Any, errors: Any, requeue: bool = False) -> None:
            if requeue:
                self._renew(publisher, message, queue, errors)
            else:
                drop(logger, errors, requeue=False)

        message.reject_log_error = go_back

    def _renew(self, publisher: AmqpPublisher, message: Any, queue: str, errors: Any) -> None:
        """Publish the message at the end of its queue, then acknowledge the old one.

        Until the publication succeeds, this worker holds the message.
        """
        if not message.channel.is_open:
            return  # The connection is lost, and the broker has taken the message back itself.
        job_id = job_id_of(message)
        try:
            publisher.renew(message_to_publish(message), job_id=job_id, queue=queue)
        except PublishFailed as error:
            log.warning(
                "job %s: its message was returned so often that RabbitMQ would drop it, and "
                "it was not published again. This worker holds the message and tries again: %s",
                job_id,
                error,
                extra={"action": "return_held", "job_id": job_id, "queue": queue},
            )
            self._later(HELD_S, lambda: self._renew(publisher, message, queue, errors))
            return
        log.info(
            "job %s: its message was returned %d times and was now published again, before "
            "queue %s drops it",
            job_id,
            message.headers["x-delivery-count"],
            queue,
            extra={"action": "return_renewed", "job_id": job_id, "queue": queue},
        )
        message.ack_log_error(log, errors)
