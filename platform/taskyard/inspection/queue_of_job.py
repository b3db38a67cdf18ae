"""The queue in which a job waits, and the command that starts a worker for it."""

from __future__ import annotations

import shlex

from taskyard.errors import TaskyardError
from taskyard.inspection.count_app_queues import look_at_apps
from taskyard.inspection.queue_counts import QueueState, look
from taskyard.settings import Settings

__all__ = ["start_worker", "state_of"]


def start_worker(settings: Settings, queue: str) -> str:
    """Return the command that starts a worker for `queue`, whose name is quoted for a shell."""
    # A client chooses the name in its job's record; an operator pastes the command.
    word = shlex.quote(queue)
    if queue in settings.queues:
        return f"taskyard worker --pool {word}"
    return f"celery -A APP worker -Q {word}"


def state_of(settings: Settings, queue: str) -> QueueState | TaskyardError:
    """Return the queue's state, or why the broker could not say."""
    try:
        if queue not in settings.queues:
            for state in look_at_apps(settings, [queue]):
                return state
        return look(settings, [queue])[0]
    except TaskyardError as error:
        return error
