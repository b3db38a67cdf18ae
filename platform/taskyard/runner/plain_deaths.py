"""What a job dies of without an exception of its handler: one text for each death."""

from __future__ import annotations

from taskyard.jobs.outcomes import Failed
from taskyard.jobs.policies import Category
from taskyard.runner.cause import plain_failure
from taskyard.wire.unpacking import UnpacksTooLarge

__all__ = [
    "delivered_too_often",
    "expired",
    "invalid_task",
    "malformed",
    "no_task",
    "not_taken",
    "rejected",
    "revoked",
    "terminated",
    "undecodable",
    "unknown_history",
    "unknown_task",
]


def no_task() -> Failed:
    """A message without a task header: nothing can run it."""
    text = "the message has no task header"
    return plain_failure(Category.UNDECODABLE, "no_task", "UnknownMessage", text)


def unknown_task(name: str, worker: str) -> Failed:
    """A task that no handler of this worker is registered for."""
    text = f"worker {worker} has no handler for {name!r}; deploy one, then replay"
    return plain_failure(Category.UNKNOWN_TASK, "unknown_task", "NotRegistered", text)


def invalid_task(error: BaseException) -> Failed:
    """Headers or arguments of a shape that Celery refuses."""
    text = f"the message is no valid task: {error}"
    return plain_failure(Category.UNDECODABLE, "invalid", type(error).__name__, text)


def malformed(fault: str) -> Failed:
    """The same, found before Celery looks."""
    text = f"the message is no valid task: {fault}"
    return plain_failure(Category.UNDECODABLE, "malformed", "Malformed", text)


def undecodable(error: BaseException) -> Failed:
    """A body that cannot be decoded, or that is too large to be unpacked."""
    name = type(error).__name__
    if isinstance(error, UnpacksTooLarge):
        text = (
            f"the compressed body was not unpacked: {error}. Where it is meant, set "
            "TASKYARD_MAX_UNPACKED_BYTES of the workers higher, then replay"
        )
        return plain_failure(Category.REJECTED, "unpacks_too_large", name, text)
    text = f"the body cannot be decoded: {error}"
    return plain_failure(Category.UNDECODABLE, "undecodable", name, text)


def not_taken(error: BaseException, worker: str) -> Failed:
    """The message may be sound and this worker at fault: its letter may be replayed."""
    name = type(error).__name__
    text = (
        f"worker {worker} could not take the message: {name}: {error}; "
        "mend what its log shows under action=not_taken, then replay"
    )
    return plain_failure(Category.INTERNAL_ERROR, "not_taken", name, text)


def delivered_too_often(count: int, limit: int) -> Failed:
    """Poison: it was delivered again and again, and no attempt of it came to an outcome."""
    text = f"deliveries reached {count}, the limit is {limit}"
    evidence: dict[str, object] = {"counter": "deliveries", "count": count, "limit": limit}
    return plain_failure(Category.POISON, "poison", "PoisonJob", text, evidence)


def expired(at: object) -> Failed:
    """Its `expires` was over before it began."""
    return plain_failure(Category.EXPIRED, "expired", "Expired", f"the message expired at {at}")


def revoked() -> Failed:
    """Revoked before it began, or terminated, by Celery's control commands."""
    text = "revoked by a control command of Celery"
    return plain_failure(Category.REJECTED, "revoked", "Revoked", text)


def terminated() -> Failed:
    """Terminated while it ran, as an existing app reports it."""
    text = "terminated by a control command"
    return plain_failure(Category.REJECTED, "terminated", "Terminated", text)


def rejected() -> Failed:
    """Celery itself drops the message."""
    text = "Celery refused the message before it ran, for example for an impossible ETA"
    return plain_failure(Category.REJECTED, "rejected", "Rejected", text)


def unknown_history(dedupe_window_s: float) -> Failed:
    """No record, and too old for the dedupe window (seconds) to say whether it ran."""
    return plain_failure(
        Category.UNKNOWN_HISTORY,
        "unknown_history",
        "UnknownHistory",
        "the job has no record and its message is older than the dedupe window "
        f"({dedupe_window_s} s): it may have run before",
    )
