"""What to say about jobs that wait in a queue without a consumer."""

from __future__ import annotations

from typing import Final

from taskyard.errors import TaskyardError
from taskyard.jobs.states import State
from taskyard.ops.cli.console import note
from taskyard.ops.cli.queues.count_app_queues import look_at_apps
from taskyard.ops.cli.queues.queue_counts import QueueState, look
from taskyard.records import Record
from taskyard.settings import Settings

__all__ = ["NO_WORKER", "WAITING", "start_worker", "state_of", "warn_if_unserved"]

NO_WORKER: Final = "no worker consumes this queue"
WAITING: Final = frozenset({State.ACCEPTED, State.RETRYING, State.REROUTED})


def start_worker(settings: Settings, queue: str) -> str:
    """Return the command that starts a worker for `queue`."""
    if queue in settings.queues:
        return f"taskyard worker --pool {queue}"
    return f"celery -A APP worker -Q {queue}"


def state_of(settings: Settings, queue: str) -> QueueState | TaskyardError:
    """Return the queue's state, or why the broker could not say."""
    try:
        if queue not in settings.queues:
            for state in look_at_apps(settings, [queue]):
                return state
        return look(settings, [queue])[0]
    except TaskyardError as error:
        return error


def warn_if_unserved(settings: Settings, record: Record) -> None:
    """Print a warning before a wait that would last until a worker starts."""
    if record.state not in WAITING or not record.queue:
        return
    found = state_of(settings, record.queue)
    if isinstance(found, QueueState) and found.unserved:
        note(
            f"no worker consumes queue {record.queue!r}, so job {record.job_id} waits. "
            f"Start one: {start_worker(settings, record.queue)}"
        )
