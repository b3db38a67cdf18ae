"""Workers: each queue has one, or the jobs in it wait."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from taskyard.clock import from_us
from taskyard.errors import InvalidSettings, TaskyardError
from taskyard.ops.cli.checks.finding import Finding
from taskyard.ops.cli.queues.look import QueueState, ask_workers, look
from taskyard.ops.cli.queues.unserved import start_worker
from taskyard.ops.cli.times import age
from taskyard.records import Fleet, Member
from taskyard.settings import Settings
from taskyard.store import connect, reachable

__all__ = ["gone", "judge", "judge_types", "look_at"]


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
    yield from gone(settings)
    if all(state.unserved for state in states):
        return  # no worker can be asked
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


def gone(settings: Settings) -> Iterator[Finding]:
    """A warning for each worker whose heartbeat stopped, while no other of its name has come."""
    try:
        url = settings.need_redis_url()
        with connect(url, retries=0) as client, reachable(url):
            now_us, members = Fleet(client, settings.namespace).read()
    except TaskyardError:
        return  # the records have a finding of their own
    living = {member.worker for member in members if member.alive(now_us)}
    for member in sorted(members, key=lambda one: one.worker):
        if not member.alive(now_us) and member.worker not in living:
            silent = age(from_us(member.seen_us), from_us(now_us))
            queues = ", ".join(member.queues) or "no queue yet"
            yield Finding.warning(
                "workers",
                f"worker {member.worker} is gone: it was last heard of {silent} ago, did not sign "
                f"off, and read {queues}. {_what_it_held(member)}",
                "Start it again; the jobs that wait for it: taskyard reconcile",
            )


def _what_it_held(member: Member) -> str:
    if not member.unacked:
        return "RabbitMQ gives back what it held at once"
    if member.own:
        return "What it held is given back within seconds where another worker of its app runs"
    sooner = ", what it had begun or named sooner by workers that protect" * member.returns
    return (
        f"What it held comes back after its visibility timeout, {member.visibility_timeout_s:g} s"
        f"{sooner}; with Taskyard's transport within seconds"
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

    `listening` is how many were asked, None where the broker does not say.
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
