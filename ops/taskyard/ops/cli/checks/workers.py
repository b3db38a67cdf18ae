"""Workers: each queue has one, or the jobs in it wait."""

from __future__ import annotations

from collections.abc import Iterator

from taskyard.errors import InvalidSettings, TaskyardError
from taskyard.ops.cli.checks.finding import Finding
from taskyard.ops.cli.queues.look import QueueState, look
from taskyard.ops.cli.queues.unserved import start_worker
from taskyard.settings import Settings

__all__ = ["judge", "look_at"]


def look_at(settings: Settings) -> Iterator[Finding]:
    """Who consumes what, as far as the broker can be asked; it has a finding of its own."""
    try:
        states = look(settings)
    except InvalidSettings:
        return  # what is missing or wrong has a finding of its own
    except TaskyardError:
        yield Finding.warning(
            "workers", "unknown: the broker could not be asked", "See what it says above."
        )
        return
    yield from judge(settings, states)


def judge(settings: Settings, states: list[QueueState]) -> Iterator[Finding]:
    """A warning for each queue without a worker: it may be meant so, but its jobs wait."""
    served = [state.queue for state in states if state.consumers]
    unknown = [state.queue for state in states if state.consumers is None]
    if served:
        yield Finding.ok("workers", f"consume {', '.join(served)}")
    if unknown:
        yield Finding.warning(
            "workers",
            f"unknown for {', '.join(unknown)}: a worker does not say what it consumes",
            "Ask again, or see: celery -A taskyard.workers.app inspect active_queues",
        )
    unserved = [state for state in states if state.unserved]
    if unserved and len(unserved) == len(states):
        yield _nobody(states)
        return
    for state in unserved:
        yield Finding.warning(
            "workers",
            f"no worker consumes queue {state.queue!r}{_waiting(state.waiting)}",
            f"Start one: {start_worker(settings, state.queue)}",
        )


def _nobody(states: list[QueueState]) -> Finding:
    total = sum(state.waiting or 0 for state in states)
    names = ", ".join(state.queue for state in states)
    return Finding.warning(
        "workers",
        f"no worker consumes any queue ({names}){_waiting(total)}",
        "Start one for all of them: taskyard worker",
    )


def _waiting(count: int | None) -> str:
    return f", where {count} wait{'s' * (count == 1)}" if count else ""
