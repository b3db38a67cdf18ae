"""Check workers: jobs wait in a queue that no worker consumes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from taskyard.errors import InvalidSettings, TaskyardError
from taskyard.inspection.queue_counts import QueueState, ask_workers, look
from taskyard.inspection.queue_of_job import start_worker
from taskyard.ops.cli.checks import dead_workers
from taskyard.ops.cli.checks.finding import Finding
from taskyard.settings import Settings

__all__ = ["judge", "judge_types", "look_at"]


def look_at(settings: Settings, types: Iterable[str]) -> Iterator[Finding]:
    """Report which workers consume which queues and know which `types`, if the broker can be asked.

    Problems of the broker itself are another finding.
    """
    try:
        states = look(settings)
    except InvalidSettings:
        return  # the finding about the broker reports the wrong setting
    except TaskyardError:
        yield Finding.warning(
            "workers",
            "it is unknown which workers run: the broker could not be asked",
            "See the finding about the broker above.",
        )
        yield from dead_workers.look_at(settings)
        return
    yield from judge(settings, states)
    yield from dead_workers.look_at(settings)
    if all(state.unserved for state in states):
        return  # no worker can be asked
    try:
        answers, listening = ask_workers(settings, "registered")
    except TaskyardError:
        yield _types_unknown("the broker could not be asked")
        return
    yield judge_types(types, answers, listening)


def judge(settings: Settings, states: list[QueueState]) -> Iterator[Finding]:
    """Warn about each queue without a worker: this may be intended, but its jobs wait."""
    served = [state.queue for state in states if state.consumers]
    unknown = [state.queue for state in states if state.consumers is None]
    if served:
        yield Finding.ok("workers", f"consume {', '.join(served)}")
    if unknown:
        yield Finding.warning(
            "workers",
            f"it is unknown whether a worker consumes {', '.join(unknown)}: some worker does not "
            f"say what it consumes",
            "Run this again, or run: celery -A taskyard.workers.app inspect active_queues",
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


def judge_types(
    types: Iterable[str], answers: Mapping[str, list[str]], listening: int | None
) -> Finding:
    """Check whether running workers know each of the `types`, by their registered tasks.

    `listening` is how many received the question, None if the broker does not say.
    """
    if not answers:
        return _types_unknown("no worker answered within a second")
    # Celery shows some of a task's attributes after its name.
    known = {task.partition(" [")[0] for tasks in answers.values() for task in tasks}
    missing = [name for name in types if name not in known]
    count = f"{len(answers)} worker{'s' * (len(answers) != 1)}"
    if not missing:
        return Finding.ok("workers", f"know every job type ({count} answered)")
    named = ", ".join(missing)
    if listening is not None and len(answers) < listening:
        return _types_unknown(f"{count} of {listening} answered, and none of them knows {named}")
    return Finding.warning(
        "workers",
        f"of {count} that answered none knows {named}: such jobs become dead letters",
        "Start a worker whose environment has the handler; running workers do not load new "
        "handlers.",
    )


def _types_unknown(why: str) -> Finding:
    return Finding.warning(
        "workers", f"it is unknown whether they know the job types: {why}", "Run this again."
    )
