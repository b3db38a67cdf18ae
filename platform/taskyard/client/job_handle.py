"""A job's handle: it gives the job's id, state, progress and result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from kombu.utils.json import loads

from taskyard.client.awaited_results import AwaitedResults
from taskyard.client.timeouts import LAST_ASK_S, NoAnswer, call_with_timeout
from taskyard.clock import SYSTEM_CLOCK
from taskyard.errors import DeadLettered, JobFailed, NotFound, ResultTimeout
from taskyard.jobs import Catalogue
from taskyard.jobs.attempt_outcomes import cause_summary
from taskyard.jobs.states import LIVE, State
from taskyard.records import Record, Records
from taskyard.settings import Settings
from taskyard.store import reachable
from taskyard.wire.letter_envelope import letter_id

__all__ = ["JobHandle"]

T = TypeVar("T")

_FIRST_WAIT_S: Final = 0.01
_LONGEST_WAIT_S: Final = 0.25


class Client(Protocol):
    """The parts of a client that a job's handle uses."""

    @property
    def settings(self) -> Settings:
        """The settings: where Redis is, and how long results are kept."""

    @property
    def catalogue(self) -> Catalogue:
        """The job types that this client knows; Taskyard stores the results of their jobs."""

    @property
    def records(self) -> Records:
        """The records of jobs in Redis."""

    @property
    def awaited(self) -> AwaitedResults:
        """The results that coroutines await."""


@dataclass(frozen=True, slots=True)
class JobHandle:
    """One enqueued job; `created` is False if its idempotency key already had a job."""

    _yard: Client = field(repr=False)
    job_id: str
    created: bool

    def record(self) -> Record:
        """Return the job's record, read from Redis now."""
        with reachable(self._yard.settings.need_redis_url()):
            return self._yard.records.read(self.job_id)

    def state(self) -> State:
        """The job's state; `State.NONE` if the job has no record, or its record has expired."""
        return self.record().state

    def progress(self) -> dict[str, Any]:
        """The last progress that the handler reported: `fraction` (0 to 1) and `note`.

        Both are empty before the first report and after the end of the job.
        """
        return self.record().progress

    def result(
        self, timeout: timedelta | float | None = None, *, wait_for_replay: bool = False
    ) -> Any:
        """Wait for the job's end and return the handler's result, as JSON data.

        Raises `DeadLettered` at once when the job is a dead letter; with `wait_for_replay`
        it waits for an operator's replay instead. Raises `JobFailed` for a job that was
        cancelled, aborted or given up. Raises `ResultTimeout` after `timeout` (seconds or
        timedelta, None waits without limit), at most a second later if Redis does not
        answer. Raises `NotFound` for an unknown job, or for a result older than
        `result_ttl_s`.

        The result of an installed app's task comes from the copy in its record. If there is
        no copy, the text of `NotFound` says where the result is.
        """
        seconds = _seconds(timeout)
        clock = SYSTEM_CLOCK
        end = None if seconds is None else clock.monotonic_s() + seconds
        wait_s = _FIRST_WAIT_S
        while True:
            record = self._asked(self.record, seconds, end)
            waits = record.state in LIVE - {State.DEAD_LETTERED}
            if not waits and not (wait_for_replay and record.state is State.DEAD_LETTERED):
                return self._asked(partial(self._ended, record, self._raw), seconds, end)
            left = wait_s if end is None else end - clock.monotonic_s()
            if left <= 0:
                raise ResultTimeout(
                    f"job {self.job_id} is still {record.state} after {seconds:g} s. See: "
                    f"taskyard jobs show {self.job_id}"
                )
            clock.wait_s(min(wait_s, left))
            wait_s = min(wait_s * 1.5, _LONGEST_WAIT_S)

    async def aresult(
        self,
        timeout: timedelta | float | None = None,  # noqa: ASYNC109 - as `result`, whose error it has
        *,
        wait_for_replay: bool = False,
    ) -> Any:
        """Await the job's result; arguments, results and errors are those of `result`.

        All results that the coroutines of a client await share one subscription, so a
        thousand of them cost Redis little more than one. If the worker reports the job's
        end, the coroutine gets the result at once; otherwise within about 5 to 20 s. A
        worker does not report the end if an operator ended the job, or if an installed app
        keeps its results in another server. Awaiting may be cancelled at any time.
        """
        awaited = self._yard.awaited
        end = await awaited.end_of(self.job_id, _seconds(timeout), replay=wait_for_replay)
        own = end.record.job_type in self._yard.catalogue
        raw = end.result if own or end.copy is None else end.copy
        return self._ended(end.record, lambda _: raw)

    def _asked(self, act: Callable[[], T], seconds: float | None, end: float | None) -> T:
        """Return what `act` reads; raise `ResultTimeout` if Redis does not answer before `end`."""
        left = None if end is None else max(end - SYSTEM_CLOCK.monotonic_s(), LAST_ASK_S)
        try:
            return call_with_timeout(left, act)
        except NoAnswer:
            raise ResultTimeout(
                f"job {self.job_id}: Redis did not answer when {seconds:g} s were over, so it is "
                f"unknown whether the job has ended. Ask again once Redis answers; `taskyard "
                f"check` shows whether it does"
            ) from None

    def _ended(self, record: Record, raw: Callable[[Record], bytes | None]) -> Any:
        """Return the result that `raw` finds, or raise an error that says why there is none."""
        match record.state:
            case State.COMPLETED:
                return self._decoded(record, raw(record))
            case State.DEAD_LETTERED:
                letter = letter_id(self.job_id, record.epoch, record.generation)
                cause = record.cause
                raise DeadLettered(letter, cause.get("code", ""), cause_summary(cause))
            case State.NONE:
                raise NotFound(
                    f"there is no record of job {self.job_id}: it was never enqueued, its record "
                    f"has expired, or it is a task of an installed Celery app that no worker has "
                    f"begun (install(app, admit=True) gives such a task a record when it is "
                    f"published). For its history see: taskyard jobs show {self.job_id}"
                )
            case state:
                raise JobFailed(self.job_id, state)

    def _raw(self, record: Record) -> bytes | None:
        """Return the stored result of the job.

        For a job type that this client does not know, the record's copy comes first.
        """
        records, own = self._yard.records, record.job_type in self._yard.catalogue
        with reachable(self._yard.settings.need_redis_url()):
            raw = None if own else records.kept_result(self.job_id)
            return records.result(self.job_id) if raw is None else raw

    def _decoded(self, record: Record, raw: bytes | None) -> Any:
        if raw is None and record.job_type in self._yard.catalogue:
            raise NotFound(
                f"job {self.job_id} is completed, but its result has expired after "
                f"{self._yard.settings.result_ttl_s} s (TASKYARD_RESULT_TTL_S)"
            )
        try:
            return loads(raw or b"")["result"]
        except (ValueError, LookupError, TypeError) as error:
            raise NotFound(self._of_an_app(record)) from error

    def _of_an_app(self, record: Record) -> str:
        """Return the error for a completed job of an unknown type whose result is not in Redis.

        Its text says where the result is.
        """
        settings = self._yard.settings
        return (
            f"job {self.job_id} is completed, but its result is not kept here. This client does "
            f"not know the job type {record.job_type!r}. If it is a task of an installed Celery "
            f"app, its "
            f"own backend has the result: app.AsyncResult({self.job_id!r}).get(). The record "
            f"copies one only under protect, as JSON of at most {settings.max_result_bytes} bytes, "
            f"for {settings.result_ttl_s} s (TASKYARD_RESULT_TTL_S)"
        )


def _seconds(timeout: timedelta | float | None) -> float | None:
    return timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
