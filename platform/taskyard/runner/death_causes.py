"""The causes of death without an exception of the handler: one text for each."""

from __future__ import annotations

from taskyard.jobs.attempt_outcomes import Failed
from taskyard.jobs.retry_policy import Category
from taskyard.runner.stored_decision import plain_failure
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
    """The cause for a message without a task header: nothing can run it."""
    text = "the message has no task header"
    return plain_failure(Category.UNDECODABLE, "no_task", "UnknownMessage", text)


def unknown_task(name: str, worker: str) -> Failed:
    """The cause for a task without a handler in this worker."""
    text = f"worker {worker} has no handler for {name!r}; deploy one, then replay the letter"
    return plain_failure(Category.UNKNOWN_TASK, "unknown_task", "NotRegistered", text)


def invalid_task(error: BaseException) -> Failed:
    """The cause for headers or arguments that Celery refuses."""
    text = f"the message is not a valid task: {error}"
    return plain_failure(Category.UNDECODABLE, "invalid", type(error).__name__, text)


def malformed(fault: str) -> Failed:
    """The cause for the same, found before Celery reads the message."""
    text = f"the message is not a valid task: {fault}"
    return plain_failure(Category.UNDECODABLE, "malformed", "Malformed", text)


def undecodable(error: BaseException) -> Failed:
    """The cause for a body that cannot be decoded, or is too large to be decompressed."""
    name = type(error).__name__
    if isinstance(error, UnpacksTooLarge):
        text = (
            f"the compressed body was not decompressed: {error}. To allow it, set "
            "TASKYARD_MAX_UNPACKED_BYTES of the workers higher, then replay the letter"
        )
        return plain_failure(Category.REJECTED, "unpacks_too_large", name, text)
    text = f"the body cannot be decoded: {error}"
    return plain_failure(Category.UNDECODABLE, "undecodable", name, text)


def not_taken(error: BaseException, worker: str) -> Failed:
    """The cause for a message that may be valid while this worker is at fault.

    It may be replayed.
    """
    name = type(error).__name__
    text = (
        f"worker {worker} could not start the message: {name}: {error}; correct the cause in its "
        "log (action=not_taken), then replay the letter"
    )
    return plain_failure(Category.INTERNAL_ERROR, "not_taken", name, text)


def delivered_too_often(count: int, limit: int) -> Failed:
    """The cause for a poison message: delivered again and again without an outcome."""
    text = f"it was delivered {count} times, the limit is {limit}"
    evidence: dict[str, object] = {"counter": "deliveries", "count": count, "limit": limit}
    return plain_failure(Category.POISON, "poison", "PoisonJob", text, evidence)


def expired(at: object) -> Failed:
    """The cause for a message whose `expires` had passed before it began."""
    return plain_failure(Category.EXPIRED, "expired", "Expired", f"the message expired at {at}")


def revoked() -> Failed:
    """The cause for a message that a control command of Celery revoked or terminated."""
    text = "revoked by a control command of Celery"
    return plain_failure(Category.REJECTED, "revoked", "Revoked", text)


def terminated() -> Failed:
    """The cause for an attempt that was terminated while it ran, as an existing app reports it."""
    text = "terminated by a control command"
    return plain_failure(Category.REJECTED, "terminated", "Terminated", text)


def rejected() -> Failed:
    """The cause for a message that Celery itself drops."""
    text = "Celery refused the message before it ran, for example for an impossible ETA"
    return plain_failure(Category.REJECTED, "rejected", "Rejected", text)


def unknown_history(dedupe_window_s: float) -> Failed:
    """The cause for a message without a record that is older than the dedupe window (seconds)."""
    return plain_failure(
        Category.UNKNOWN_HISTORY,
        "unknown_history",
        "UnknownHistory",
        "the job has no record and its message is older than the dedupe window "
        f"({dedupe_window_s} s): it may have run before",
    )
