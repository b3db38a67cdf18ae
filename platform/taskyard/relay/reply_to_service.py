"""Reply to the service of a job that an operator has ended.

The reply is published before the request is answered, so a relay that dies in between makes the
next one publish it again, with the same message id.
"""

from __future__ import annotations

from taskyard.control.live_verb import SUMMARY
from taskyard.errors import Unroutable
from taskyard.jobs.states import State
from taskyard.outbox import Intent
from taskyard.records import ReplyTo, VerbApplied
from taskyard.relay.ports import PublisherPort
from taskyard.wire.operator_reply import reply_message
from taskyard.wire.redacted_logs import logger

__all__ = ["reply_to_service"]

log = logger(__name__)


def reply_to_service(publisher: PublisherPort, intent: Intent, answer: VerbApplied) -> str | None:
    """Publish the reply; return what became of it, for the audit log; None if no service waits.

    Raises `PublishFailed` if the broker has not confirmed the reply, and may do so later.
    """
    if answer.reply is None:
        return None
    facts, forced = intent.payload, answer.state is State.COMPLETED
    message = reply_message(
        intent.id,
        intent.job_id,
        answer.state.value,
        answer.reply.correlation_id,
        result=facts["result"].encode() if forced else None,
        summary=facts.get(SUMMARY),
    )
    queue = answer.reply.queue
    try:
        publisher.publish_reply(message, queue=queue, job_id=intent.job_id)
    except Unroutable as error:
        _log_drop(intent, answer.reply, error)
        return f"dropped, because the broker has no queue {queue}"
    return f"published to queue {queue}"


def _log_drop(intent: Intent, reply: ReplyTo, error: Unroutable) -> None:
    log.warning(
        "job %s is ended by an operator, and the reply to its service is dropped, because no queue "
        "%s takes it: %s. The service must declare that queue before it enqueues with reply_to",
        intent.job_id,
        reply.queue,
        error,
        extra={
            "action": "relay_reply_dropped",
            "job_id": intent.job_id,
            "request": str(intent.id),
            "queue": reply.queue,
        },
    )
