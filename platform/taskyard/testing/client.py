"""The client of a yard in memory: production's API, checks and errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Unpack, cast

from taskyard.client import EnqueueRequest, JobHandle, Taskyard
from taskyard.client.batch import Batch
from taskyard.client.check_request import CheckedRequest, EnqueueOptions, Seconds, check
from taskyard.client.render_message import first_message, reply_address
from taskyard.clock import us_of
from taskyard.errors import KillSwitchOn, ResultTimeout
from taskyard.jobs import Catalogue
from taskyard.jobs.states import LIVE, State
from taskyard.records import Admission, Admitted, Record
from taskyard.settings import Settings
from taskyard.testing.broker import MemoryBroker
from taskyard.testing.clock import YardClock
from taskyard.testing.records import MemoryRecords
from taskyard.wire.stamp_header import Stamp

__all__ = ["EnqueuedJob", "MemoryClient"]

# The name can never resolve (RFC 2606): a connection fails with an error that names it.
_NOWHERE: Final = "redis://taskyard-testing.invalid/0"


class YardHandle(JobHandle):
    """A `JobHandle` that never waits, because no job runs while the test waits."""

    __slots__ = ()

    def record(self) -> Record:
        """The job's record."""
        return self._yard.records.read(self.job_id)

    def result(
        self, timeout: timedelta | float | None = None, *, wait_for_replay: bool = False
    ) -> Any:
        """Return the handler's result; the errors are those of `JobHandle.result`.

        Raises `ResultTimeout` at once where production would wait, unless the yard was made with
        `run_on_wait`: then jobs run up to `timeout` of the yard's clock.
        """
        waits = LIVE if wait_for_replay else LIVE - {State.DEAD_LETTERED}
        yard = cast("MemoryClient", self._yard)
        ran = yard.wait_until(lambda: self.record().state not in waits, timeout)
        record = self.record()
        if record.state in waits:
            raise ResultTimeout(_still(self.job_id, record.state, timeout, ran=ran))
        return self._ended(record, self._raw)

    async def aresult(
        self,
        timeout: timedelta | float | None = None,  # noqa: ASYNC109 - as `result`, whose error it has
        *,
        wait_for_replay: bool = False,
    ) -> Any:
        """Return the result as `result` does, for tests that are coroutines."""
        return self.result(timeout, wait_for_replay=wait_for_replay)


def _still(job_id: str, state: State, timeout: timedelta | float | None, *, ran: bool) -> str:
    if ran:
        limit = (
            "nothing is left that could run" if timeout is None else f"its timeout was {timeout}"
        )
        return f"job {job_id} is still {state}; the yard ran what was due, and {limit}"
    return (
        f"job {job_id} is still {state}, and no job runs while a test asks for a result: call "
        "yard.run() first, or yard.settle() if the job waits for its time; for code that enqueues "
        "and waits in one call make the yard with run_on_wait=True"
    )


@dataclass(frozen=True, slots=True)
class EnqueuedJob:
    """One job that this yard accepted, with the arguments of its enqueue."""

    handle: JobHandle
    job_type: str
    queue: str
    priority: int
    payload: Any
    countdown_s: float


class MemoryClient(Taskyard):
    """A `Taskyard` client whose records and broker are in memory."""

    def __init__(self, settings: Settings, catalogue: Catalogue, clock: YardClock) -> None:
        # Without the base's `__init__`, which needs servers.
        urls = {"redis_url": _NOWHERE, "broker_url": _NOWHERE}
        self.settings = settings.model_copy(update=urls)
        self.catalogue = catalogue
        self.clock = clock
        self.records: MemoryRecords = MemoryRecords(
            clock, self.settings, domain_of=catalogue.domain_of
        )
        self.publisher = self.broker = MemoryBroker(self.settings)
        self.enqueued: list[EnqueuedJob] = []

    def enqueue(
        self,
        job_type: str,
        payload: Any,
        *,
        queue: str | None = None,
        priority: int | None = None,
        idempotency_key: str | None = None,
        unique_for: Seconds | None = None,
        countdown: Seconds | None = None,
        expires: datetime | Seconds | None = None,
        reply_to: str | None = None,
        policy: Mapping[str, object] | None = None,
    ) -> JobHandle:
        """Enqueue a job as `Taskyard.enqueue` does: the same arguments, checks and errors."""
        request = EnqueueRequest(
            job_type=job_type,
            payload=payload,
            queue=queue,
            priority=priority,
            idempotency_key=idempotency_key,
            unique_for=unique_for,
            countdown=countdown,
            expires=expires,
            reply_to=reply_to,
            policy=policy,
        )
        checked = check(request, self.settings, self.catalogue)
        outcome = self._admit(checked)
        if isinstance(outcome, KillSwitchOn):
            raise outcome
        return self._accept(checked, outcome)

    async def aenqueue(
        self, job_type: str, payload: Any, **options: Unpack[EnqueueOptions]
    ) -> JobHandle:
        """Enqueue a job as `enqueue` does, for asyncio; it never waits."""
        return self.enqueue(job_type, payload, **options)

    def enqueue_many(self, requests: Iterable[EnqueueRequest]) -> list[JobHandle]:
        """Enqueue many jobs; every request is checked before the first is accepted.

        A kill switch refuses only its own requests, then `KillSwitchOn` names them.
        """
        batch = Batch(
            [check(request, self.settings, self.catalogue) for request in requests], self._accept
        )
        for request in batch.requests_to_send():
            batch.add_outcomes([self._admit(request)])
        return batch.finish()

    def job(self, job_id: str) -> JobHandle:
        """Return the handle of a job that was enqueued elsewhere."""
        return YardHandle(self, job_id, created=False)

    def wait_until(self, ended: Callable[[], bool], timeout: timedelta | float | None) -> bool:
        """Return whether jobs ran while the caller waited; this client runs none."""
        return False

    def close(self) -> None:
        """Close the client's event loops and files."""
        if self._app is not None:
            self._app.close()

    def _admit(self, request: CheckedRequest) -> Admitted | KillSwitchOn:
        (outcome,) = self.records.admit_many(
            [
                Admission(
                    request.job_id,
                    request.job_type.name,
                    request.queue,
                    request.priority,
                    request.unique_for_s,
                    publication=None,
                    reply=reply_address(request),
                )
            ]
        )
        return outcome

    def _accept(self, request: CheckedRequest, admitted: Admitted) -> JobHandle:
        handle = YardHandle(self, request.job_id, created=admitted.created)
        if admitted.created:
            self._publish_first(request, admitted.epoch)
            place = (request.job_type.name, request.queue, request.priority)
            self.enqueued.append(EnqueuedJob(handle, *place, request.payload, request.countdown_s))
        return handle

    def _publish_first(self, request: CheckedRequest, epoch: int) -> None:
        if isinstance(request.expires, float):
            moment = self.clock.now() + timedelta(seconds=request.expires)
            request = replace(request, expires=moment)
        place: dict[str, Any] = {
            "queue": request.queue,
            "priority": request.priority,
            "job_id": request.job_id,
            "stamp": Stamp(epoch, policy=request.policy),
        }
        message = first_message(self.app, request)
        if request.countdown_s > 0:
            due_us = self.clock.now_us() + us_of(request.countdown_s)
            self.broker.publish_later(message, due_us=due_us, **place)
        else:
            self.broker.publish(message, **place)
        self.records.confirm(request.job_id, epoch)
