"""Around a handler: a Redis that does not answer is asked again, for a bounded time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from celery.exceptions import Reject
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from taskyard.wire.logs import logger

__all__ = ["AFTER", "BEFORE", "ask"]

log = logger(__name__)

# Waits of 0.1 s, then twice as long each time up to 2 s; what the client itself tries comes on top.
_BASE_S: Final = 0.05
_LONGEST_WAIT_S: Final = 2.0
# Nothing is done yet: after 1.5 s of waits the message goes back to its queue.
BEFORE: Final = 4
# The work is done, and done again if its outcome is not recorded: 15 s of waits are cheaper.
AFTER: Final = 11


_Answer = TypeVar("_Answer")


def ask(step: str, job_id: str, act: Callable[[], _Answer], repeats: int) -> _Answer:
    """What `act` returns, asked again up to `repeats` times while Redis is away or refuses.

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
    try:
        return Retry(backoff, repeats, supported_errors=(RedisError,)).call_with_retry(act, tell)
    except RedisError as error:
        log.error(
            "job %s: %s given up, the message goes back to its queue: %s",
            job_id,
            step,
            error,
            extra={"action": f"{step}_given_up", "job_id": job_id},
        )
        raise Reject(f"records unreachable: {error}", requeue=True) from error
