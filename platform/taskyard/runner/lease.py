"""Renew the leases of running attempts: one thread for each process, the lease keeper."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass, field
from typing import Final

from redis.exceptions import RedisError

from taskyard.jobs.states import State
from taskyard.records import Records
from taskyard.wire.failure_backoff import FailureBackoff
from taskyard.wire.redacted_logs import logger

__all__ = ["Lease", "LeaseKeeper"]

log = logger(__name__)

_RENEW: Final = (
    "the lease of a running job was not renewed (when it ends, another worker may run the job)"
)


@dataclass(slots=True)
class Lease:
    """The lease of one running attempt.

    The handler's context reads it, and the thread of the lease keeper writes it.
    """

    records: Records
    job_id: str
    token: int
    _cancelled: bool = False
    _lost: bool = False
    stopped: bool = False
    """Whether the handler has read that it must stop, because an operator asked for it."""
    _progress: tuple[float, str] | None = field(default=None, repr=False)

    def cancelled(self) -> bool:
        """Whether an operator asked this attempt to stop."""
        self.stopped = self.stopped or self._cancelled
        return self._cancelled

    def lease_lost(self) -> bool:
        """Whether this attempt lost its lease, so that another attempt runs the job."""
        return self._lost

    def progress(self, fraction: float, note: str) -> None:
        """Write the handler's progress to the job's record.

        If Redis does not answer, the report is dropped and the job continues.
        """
        try:
            self.records.attempts.progress(self.job_id, self.token, fraction, note)
        except RedisError as error:
            facts = json.dumps({"job_id": self.job_id, "error": str(error)})
            log.warning(
                "the progress that a handler reported was not written to the job's record, "
                "and the job continues: %s",
                facts,
                extra={"action": "progress_lost"},
            )

    def renew(self) -> None:
        """Renew the lease once, and note if it was lost or if the job was cancelled."""
        kept, detail = self.records.attempts.renew(self.job_id, self.token)
        if kept:
            self._cancelled = self._cancelled or detail != ""
        elif detail in (State.CANCELLED, State.ABORTED):
            self._cancelled = True
        else:
            self._lost = True


class LeaseKeeper:
    """Renews the leases of all running attempts in its process, three times per lease duration.

    Threads of a pool share one keeper.
    """

    def __init__(self, lease_s: float) -> None:
        self._interval_s = lease_s / 3
        self._leases: dict[int, Lease] = {}
        self._backoff = FailureBackoff()
        self._thread: threading.Thread | None = None
        self._pid = 0

    def watch(self, lease: Lease) -> None:
        """Renew `lease` until `release` is called.

        The first call in a process starts the keeper's thread.
        """
        self._leases[id(lease)] = lease
        if self._thread is None or self._pid != os.getpid():
            self._pid = os.getpid()
            self._thread = threading.Thread(target=self._run, name="taskyard-lease", daemon=True)
            self._thread.start()

    def release(self, lease: Lease) -> None:
        """Stop renewing this lease."""
        self._leases.pop(id(lease), None)

    def _run(self) -> None:
        tick = threading.Event()
        watched: list[Lease] = []
        while True:
            tick.wait(self._interval_s)
            # A lease younger than one interval has used less than a third of its time.
            for lease in watched:
                if id(lease) in self._leases:
                    self._renew(lease)
            watched = list(self._leases.values())

    def _renew(self, lease: Lease) -> None:
        try:
            lease.renew()
        except RedisError as error:
            # Try again after a third of a lease, whatever the wait: it is about to end.
            self._backoff.failed(
                _RENEW, error, action="lease_not_renewed", facts={"job_id": lease.job_id}
            )
        else:
            self._backoff.succeeded(_RENEW)
