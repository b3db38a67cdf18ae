"""Around a handler: a Redis that does not answer is asked again, for a bounded time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final, TypeVar

from celery.exceptions import Reject
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from taskyard.wire.logs import logger

__all__ = ["AFTER", "BEFORE", "Patience", "ask"]

log = logger(__name__)

# Waits of 0.1 s, then twice as long each time up to 2 s; what the client itself tries comes on top.
_BASE_S: Final = 0.05
_LONGEST_WAIT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How often to ask again, and for how long: no repeat begins after `within_s`."""

    repeats: int
    within_s: float


# Nothing is done yet: after 1.5 s of waits the message goes back to its queue.
_BEFORE_REPEATS: Final = 4
_BEFORE_S: Final = 5.0
# The work is done, and done again if its outcome is not recorded: 15 s of waits are cheaper.
_AFTER_REPEATS: Final = 11
_AFTER_S: Final = 60.0

BEFORE: Final = Patience(_BEFORE_REPEATS, _BEFORE_S)
AFTER: Final = Patience(_AFTER_REPEATS, _AFTER_S)


_Answer = TypeVar("_Answer")


def ask(step: str, job_id: str, act: Callable[[], _Answer], patience: Patience) -> _Answer:
    """What `act` returns, asked again as `patience` says while Redis is away or refuses.

    Raises `Reject(requeue=True)` after the last: the message goes back, its next delivery begins
    anew. `step` names the log event of each failure, `<step>_unreachable`.
    """

    def tell(error: Exception) -> None:
        log.warning(
            "job %s: no answer from Redis to %s: %s",
            job_id,
            step,
            error,
            extra={"action": f"{step}_unreachable", "job_id": job_id},
        )

    backoff = ExponentialBackoff(cap=_LONGEST_WAIT_S, base=_BASE_S)
    retry = Retry(backoff, patience.repeats, supported_errors=(RedisError,))
    until = monotonic() + patience.within_s
    try:
        return retry.call_with_retry(act, tell, is_retryable=lambda _: monotonic() < until)
    except RedisError as error:
        log.error(
            "job %s: %s given up, the message goes back to its queue: %s",
            job_id,
            step,
            error,
            extra={"action": f"{step}_given_up", "job_id": job_id},
        )
        raise Reject(f"records unreachable: {error}", requeue=True) from error
