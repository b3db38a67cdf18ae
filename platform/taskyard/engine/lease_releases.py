"""Release the leases of attempts that a lost connection ended, now or when Redis answers."""

from __future__ import annotations

from collections import deque
from typing import Final

from redis.exceptions import RedisError

from taskyard.records import AttemptScripts
from taskyard.wire.redacted_logs import logger

__all__ = ["MOST_OWED", "Releases"]

log = logger(__name__)

# More than any worker runs at once; a lease that is not released costs its job one death.
MOST_OWED: Final = 1_000


class Releases:
    """The leases that one worker must release, in its main process.

    The connection that was lost is often that of the records too. Without a release each such
    loss counts as a death, and three of them dead-letter a job that never failed.
    """

    def __init__(self, attempts: AttemptScripts) -> None:
        self._attempts = attempts
        self._owed: deque[tuple[str, str]] = deque(maxlen=MOST_OWED)

    def owe(self, job_id: str, holder: str) -> None:
        """Release the lease of this delivery; if Redis is unreachable, later."""
        self._owed.append((job_id, holder))
        self.settle()

    def settle(self) -> None:
        """Release the noted leases, until Redis does not answer."""
        while self._owed:
            job_id, holder = self._owed[0]
            try:
                self._attempts.release(job_id, holder)
            except RedisError as error:
                log.warning(
                    "job %s: its lease is not released yet, because Redis does not answer; "
                    "this worker tries again: %s",
                    job_id,
                    error,
                    extra={"action": "release_unreachable", "job_id": job_id},
                )
                return
            self._owed.popleft()
