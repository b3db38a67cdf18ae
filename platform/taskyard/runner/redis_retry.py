"""Repeat calls to Redis that fail, for a limited time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final, TypeVar

from celery.exceptions import Reject
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from taskyard.wire.failure_backoff import FailureBackoff
from taskyard.wire.redacted_logs import logger

__all__ = ["AFTER", "BEFORE", "RetryLimits", "Unreachable", "retry_redis"]

log = logger(__name__)

# For this process: a pool has several, and each logs it once.
_BACKOFF: Final = FailureBackoff()

# Waits of 0.1 s, then twice as long each time up to 2 s; the client's own retries are in addition.
_BASE_S: Final = 0.05
_LONGEST_WAIT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """Limits for repeated calls to Redis: how often, and for how long.

    No repeat begins after `within_s` seconds.
    """

    repeats: int
    within_s: float


# Nothing is done yet: after 1.5 s of waits the message goes back to its queue.
_BEFORE_REPEATS: Final = 4
_BEFORE_S: Final = 5.0
# The work is done, and would be done again if its outcome were not recorded: 15 s of waits are
# cheaper.
_AFTER_REPEATS: Final = 11
_AFTER_S: Final = 60.0

BEFORE: Final = RetryLimits(_BEFORE_REPEATS, _BEFORE_S)
AFTER: Final = RetryLimits(_AFTER_REPEATS, _AFTER_S)


# Log actions keep this step's old name; texts for people say what the step does.
_SHOWN: Final = {"condemn": "dead-letter"}

_Answer = TypeVar("_Answer")


class Unreachable(Reject):  # type: ignore[misc]
    """Raised when the records in Redis did not answer, or refused, in all tries.

    The message returns to its queue, and a later delivery starts a new attempt.
    """

    def __init__(self, reason: str, requeue: bool = True) -> None:
        super().__init__(reason, requeue)


def retry_redis(step: str, job_id: str, act: Callable[[], _Answer], limits: RetryLimits) -> _Answer:
    """Call `act` and return its answer; repeat it if Redis is unreachable or refuses.

    The repeats are limited by `limits`. Raises `Unreachable` after the last try. `step` names
    the log event, `<step>_unreachable`.
    """
    shown = _SHOWN.get(step, step)
    what = f"Redis did not answer in step {shown!r} of a job"

    def note(error: Exception) -> None:
        facts = {"job_id": job_id}
        _BACKOFF.failed(what, error, action=f"{step}_unreachable", item=job_id, facts=facts)

    backoff = ExponentialBackoff(cap=_LONGEST_WAIT_S, base=_BASE_S)
    retry = Retry(backoff, limits.repeats, supported_errors=(RedisError,))
    until = monotonic() + limits.within_s
    try:
        answer = retry.call_with_retry(act, note, is_retryable=lambda _: monotonic() < until)
    except RedisError as error:
        # The main process logs it, holds the message and gives it back.
        log.debug(
            "job %s: step %r failed in all tries, so its message returns to the queue: %s",
            job_id,
            shown,
            error,
            extra={"action": f"{step}_given_up", "job_id": job_id},
        )
        raise Unreachable(f"Redis did not answer in step {shown!r} of the job: {error}") from error
    _BACKOFF.succeeded(what, job_id)
    return answer
