"""Workers: each queue has one, or the jobs in it wait."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from taskyard.errors import InvalidSettings, TaskyardError
from taskyard.ops.cli.checks.finding import Finding
from taskyard.ops.cli.queues.look import QueueState, ask_workers, look
from taskyard.ops.cli.queues.unserved import start_worker
from taskyard.settings import Settings

__all__ = ["judge", "judge_types", "look_at"]


def look_at(settings: Settings, types: Iterable[str]) -> Iterator[Finding]:
    """Who consumes what and knows which of the `types`, as far as the broker can be asked.

    What is wrong with the broker itself is a finding of its own.
    """
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
    if all(state.unserved for state in states):
        return  # nobody is there to be asked
    try:
        answers, listening = ask_workers(settings, "registered")
    except TaskyardError:
        yield _types_unknown("the broker could not be asked")
        return
    yield judge_types(types, answers, listening)


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


def judge_types(
    types: Iterable[str], answers: Mapping[str, list[str]], listening: int | None
) -> Finding:
    """Whether a worker that is up knows each of the `types`, by what workers have registered.

    `listening` is how many were asked, None where the broker does not tell.
    """
    if not answers:
        return _types_unknown("no worker answered within a second")
    # Celery shows some of a task's attributes behind its name.
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
        "Start one whose environment has the handler; what runs is as it was when it started.",
    )


def _types_unknown(why: str) -> Finding:
    return Finding.warning(
        "workers", f"unknown whether they know the job types: {why}", "Ask again."
    )
