"""The queue to which an operator moves a job: check it before, and fetch the message after.

A message that no worker takes would stay in its old queue; at Redis the relay can move it itself.
"""

from __future__ import annotations

from redis.exceptions import RedisError

from taskyard.control.live_verb import TO_QUEUE
from taskyard.errors import PublishFailed, Refused
from taskyard.outbox import Intent
from taskyard.relay.ports import QueuesPort, RecordsPort
from taskyard.settings import Settings
from taskyard.wire import Stamp
from taskyard.wire.redacted_logs import logger

__all__ = ["check_new_queue", "fetch_message"]

log = logger(__name__)


def check_new_queue(
    settings: Settings, records: RecordsPort, queues: QueuesPort, intent: Intent
) -> None:
    """Raise unless workers of the same kind read the new queue.

    The worker that takes the message forwards it with its own names of queues. `UnknownQueue` or
    `Refused` if an operator must act, `PublishFailed` if waiting may help. A reroute that is
    applied already is not refused any more.
    """
    old, new = intent.payload["queue"], intent.payload[TO_QUEUE]
    if records.read(intent.job_id).fields.get("verb") == str(intent.id):
        return
    ours = new in settings.queues
    if not ours and not queues.is_announced(new):
        settings.queue(new)  # raises, with the nearest names
    # Only a task of an installed app is in an unknown queue: our own jobs have a record.
    if ours != (old in settings.queues):
        kinds = ("an installed app", "Taskyard's own workers")
        raise Refused(
            f"job {intent.job_id} is in queue {old or '(unknown)'} of {kinds[not ours]}, and "
            f"{new} is a queue of {kinds[ours]}, which do not know its task. Choose a queue that "
            "workers of its own kind read: taskyard queues list"
        )
    queues.check(new)


def fetch_message(records: RecordsPort, queues: QueuesPort, intent: Intent, stamp: Stamp) -> bool:
    """Move the message of a rerouted job, if it waits at Redis near the end that is served next.

    Return whether it was moved. Where it cannot be searched, a worker forwards it. A relay that
    dies before it confirms the move leaves a message that does so itself when it begins.
    """
    record, old = records.read(intent.job_id), intent.payload["queue"]
    first, priority = record.fields.get("moved_from"), record.fields.get("priority")
    # The message of a changed retry may have to be published in the place of the one that waits.
    if not first or not old or "next" in record.fields:
        return False
    epoch, generation, seq = (int(part) for part in first.split(":"))
    try:
        found = queues.fetch(
            intent.job_id,
            old=old,
            new=intent.payload[TO_QUEUE],
            first=(epoch, generation, seq),
            stamp=stamp,
            priority=int(priority) if priority else None,
        )
    except (RedisError, PublishFailed, Refused) as error:
        log.warning(
            "the message of job %s was not searched for in queue %s; the worker that takes it "
            "forwards it: %s",
            intent.job_id,
            old,
            error,
            extra={"action": "message_not_fetched", "job_id": intent.job_id},
        )
        return False
    if found:
        records.requeued(intent.job_id, stamp.epoch, stamp.generation)
    return found
