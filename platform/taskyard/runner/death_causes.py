"""Describe deaths that no exception of a handler caused: one text for each kind."""

from __future__ import annotations

from taskyard.jobs.attempt_outcomes import Failed
from taskyard.jobs.retry_policy import Category
from taskyard.runner.stored_decision import plain_failure
from taskyard.wire.decompression import UnpacksTooLarge

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
    """Return the cause of death for a message without a task header, which no worker can run."""
    text = "the message has no header 'task', so no handler can run it"
    return plain_failure(Category.UNDECODABLE, "no_task", "UnknownMessage", text)


def unknown_task(name: str, worker: str) -> Failed:
    """Return the cause of death for a task that has no handler in this worker."""
    text = f"worker {worker} has no handler for {name!r}; deploy one, then replay the dead letter"
    return plain_failure(Category.UNKNOWN_TASK, "unknown_task", "NotRegistered", text)


def invalid_task(error: BaseException) -> Failed:
    """Return the cause of death for a message whose headers or arguments Celery refuses."""
    text = f"the message is not a valid task: {error}"
    return plain_failure(Category.UNDECODABLE, "invalid", type(error).__name__, text)


def malformed(fault: str) -> Failed:
    """Return the cause of death for an invalid message that is found before Celery reads it."""
    text = f"the message is not a valid task: {fault}"
    return plain_failure(Category.UNDECODABLE, "malformed", "Malformed", text)


def undecodable(error: BaseException) -> Failed:
    """Return the cause of death for a message whose body cannot be decoded.

    A compressed body that would be too large counts as one.
    """
    name = type(error).__name__
    if isinstance(error, UnpacksTooLarge):
        text = (
            f"the compressed body was not decompressed: {error}. To allow its size, set a "
            "higher TASKYARD_MAX_UNPACKED_BYTES for the workers, then replay the dead letter"
        )
        return plain_failure(Category.REJECTED, "unpacks_too_large", name, text)
    text = f"the body cannot be decoded: {error}"
    return plain_failure(Category.UNDECODABLE, "undecodable", name, text)


def not_taken(error: BaseException, worker: str) -> Failed:
    """Return the cause of death for a message that this worker could not start.

    The message itself may be valid, so an operator may replay it.
    """
    name = type(error).__name__
    text = (
        f"worker {worker} could not start the message: {name}: {error}; find the cause in the "
        "worker's log (action=not_taken) and correct it, then replay the dead letter"
    )
    return plain_failure(Category.INTERNAL_ERROR, "not_taken", name, text)


def delivered_too_often(count: int, limit: int) -> Failed:
    """Return the cause of death for a poison message.

    Such a message was delivered again and again without an outcome.
    """
    text = f"the message was delivered {count} times without an outcome, the limit is {limit}"
    evidence: dict[str, object] = {"counter": "deliveries", "count": count, "limit": limit}
    return plain_failure(Category.POISON, "poison", "PoisonJob", text, evidence)


def expired(at: object) -> Failed:
    """Return the cause of death for a message whose `expires` had passed before the job began."""
    return plain_failure(Category.EXPIRED, "expired", "Expired", f"the message expired at {at}")


def revoked() -> Failed:
    """Return the cause of death for a message that Celery's control commands stopped."""
    text = "the job was revoked by a control command of Celery"
    return plain_failure(Category.REJECTED, "revoked", "Revoked", text)


def terminated() -> Failed:
    """Return the cause of death for an attempt that a control command terminated while it ran."""
    text = "the attempt was terminated by a control command"
    return plain_failure(Category.REJECTED, "terminated", "Terminated", text)


def rejected() -> Failed:
    """Return the cause of death for a message that Celery itself drops."""
    text = "Celery refused the message before it ran, for example for an impossible ETA"
    return plain_failure(Category.REJECTED, "rejected", "Rejected", text)


def unknown_history(dedupe_window_s: float) -> Failed:
    """Return the cause of death for an old message whose job has no record.

    The message is older than the dedupe window (seconds), so the job may have run before.
    """
    return plain_failure(
        Category.UNKNOWN_HISTORY,
        "unknown_history",
        "UnknownHistory",
        "the job has no record and its message is older than the dedupe window "
        f"({dedupe_window_s} s): the job may have run before",
    )
