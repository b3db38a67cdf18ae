"""What to say about jobs that wait in a queue without a consumer."""

from __future__ import annotations

from typing import Final

from taskyard.inspection.queue_counts import QueueState
from taskyard.inspection.queue_of_job import start_worker, state_of
from taskyard.jobs.states import State
from taskyard.ops.cli.console import note
from taskyard.records import Record
from taskyard.settings import Settings

__all__ = ["NO_WORKER", "WAITING", "warn_if_unserved"]

NO_WORKER: Final = "no worker consumes this queue"
WAITING: Final = frozenset({State.ACCEPTED, State.RETRYING, State.REROUTED})


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
