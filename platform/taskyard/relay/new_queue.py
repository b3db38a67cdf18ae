"""Check the queue to which an operator moves a job, before the job's record is changed.

Alone because it is the one rule of a reroute that needs the settings and the fleet.
"""

from __future__ import annotations

from taskyard.control.live_verb import TO_QUEUE
from taskyard.errors import Refused
from taskyard.outbox import Intent
from taskyard.relay.ports import QueuesPort, RecordsPort
from taskyard.settings import Settings

__all__ = ["check_new_queue"]


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
