"""`Control`: operators' verbs for programs, by one identity."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, Self

from sqlalchemy import Engine

from taskyard import database
from taskyard.access import Identity
from taskyard.control.authenticate_operator import identify
from taskyard.control.forced_result import forced_result
from taskyard.control.job_snapshot import ReadsRecords
from taskyard.control.live_verb import WAIT_S, VerbOutcome, answers, moved_to, request_verb
from taskyard.control.operator_reasons import Mode
from taskyard.jobs.states import Event
from taskyard.records import Records
from taskyard.settings import Settings, load
from taskyard.store import connect

__all__ = ["Control"]


class Control:
    """Operators' verbs on live jobs: permitted, reasoned, audited, and carried out by the relay.

    Each verb waits `wait_s` for the relay and returns a `VerbOutcome`; `pending` means that the
    relay will carry it out, or waits for a running attempt to end. Any thread may call it; the
    methods that begin with `a` are for coroutines.

    Every verb raises `NotPermitted`, `InvalidReason`, and `Refused` for what is certain at once;
    each of them is audited. Without Postgres nothing is requested: `ServerUnreachable`.
    """

    def __init__(
        self,
        engine: Engine,
        records: ReadsRecords,
        identity: Identity | Callable[[], Identity],
        *,
        require_reason: Mode = "strict",
        wait_s: float = WAIT_S,
    ) -> None:
        """Set who acts: an identity, or a function that verifies it for each verb."""
        self._engine, self._records, self._identity = engine, records, identity
        self._require_reason, self._wait_s = require_reason, wait_s

    @classmethod
    @contextmanager
    def opened(cls, settings: Settings | None = None) -> Iterator[Self]:
        """Connect as the bearer of `TASKYARD_TOKEN`, or as this machine's trusted user.

        Each verb verifies the token again, so that a program that runs for weeks stops acting when
        its token ends, is revoked, or gets fewer rights.
        Raises `NotPermitted` without either, and `MissingSetting`.
        """
        known = load().settings if settings is None else settings
        url = known.need_database_url()
        with (
            closing(connect(known.need_redis_url())) as client,
            database.opened(url, application_name="taskyard control") as engine,
        ):
            verified = partial(identify, engine, known, source="Control")
            verified()  # a refused token is refused before the first verb
            mode = known.require_reason
            yield cls(engine, Records(client, known), verified, require_reason=mode)

    def cancel(
        self,
        job_id: str,
        *,
        reason: str | None,
        on_behalf_of: str | None = None,
        if_version: int | None = None,
    ) -> VerbOutcome:
        """Cancel a job: it does not begin, or its running attempt is asked to stop.

        A running attempt that returns a result without having seen the request completes the
        job, and the cancel is refused. Cancelling a cancelled job changes nothing.
        """
        return self._call(Event.CANCEL, job_id, reason, on_behalf_of, if_version)

    async def acancel(
        self,
        job_id: str,
        *,
        reason: str | None,
        on_behalf_of: str | None = None,
        if_version: int | None = None,
    ) -> VerbOutcome:
        """Cancel a job as `cancel` does, in a thread."""
        behalf, version = on_behalf_of, if_version
        call = partial(self.cancel, reason=reason, on_behalf_of=behalf, if_version=version)
        return await asyncio.to_thread(call, job_id)

    def abort(
        self,
        job_id: str,
        *,
        reason: str | None,
        on_behalf_of: str | None = None,
        if_version: int | None = None,
    ) -> VerbOutcome:
        """Abort a job now, and stop its running attempt by killing the attempt's process.

        In a pool of threads or a solo pool nothing can stop the attempt: its outcome is dropped,
        and `VerbOutcome.attempt` says so.
        """
        return self._call(Event.ABORT, job_id, reason, on_behalf_of, if_version)

    async def aabort(
        self,
        job_id: str,
        *,
        reason: str | None,
        on_behalf_of: str | None = None,
        if_version: int | None = None,
    ) -> VerbOutcome:
        """Abort a job as `abort` does, in a thread."""
        behalf, version = on_behalf_of, if_version
        call = partial(self.abort, reason=reason, on_behalf_of=behalf, if_version=version)
        return await asyncio.to_thread(call, job_id)

    def complete(
        self,
        job_id: str,
        *,
        reason: str | None,
        summary: str,
        result: Any = None,
        on_behalf_of: str | None = None,
        if_version: int | None = None,
    ) -> VerbOutcome:
        """Complete a job now with `result`, which its callers get as if a worker had returned it.

        `summary` says how the job was resolved; it is kept in the audit log. A running attempt is
        stopped as by `abort`. A chain goes on with the result when a worker sees the job's
        message. Raises `InvalidPayload` also for a result that is not JSON, or larger than
        `max_result_bytes`.
        """
        most = self._records.settings.max_result_bytes
        own = partial(forced_result, job_id, most, summary=summary, result=result)
        return self._call(Event.FORCE_COMPLETE, job_id, reason, on_behalf_of, if_version, own)

    async def acomplete(
        self,
        job_id: str,
        *,
        reason: str | None,
        summary: str,
        result: Any = None,
        on_behalf_of: str | None = None,
        if_version: int | None = None,
    ) -> VerbOutcome:
        """Complete a job as `complete` does, in a thread."""
        behalf, version = on_behalf_of, if_version
        facts = {"summary": summary, "result": result}
        call = partial(
            self.complete, reason=reason, on_behalf_of=behalf, if_version=version, **facts
        )
        return await asyncio.to_thread(call, job_id)

    def reroute(
        self,
        job_id: str,
        queue: str,
        *,
        reason: str | None,
        on_behalf_of: str | None = None,
        if_version: int | None = None,
    ) -> VerbOutcome:
        """Move a job to another queue, and stop its running attempt as `abort` does.

        The job runs in `queue` when a worker has taken its message from the old one and forwarded
        it; until then the outcome is `pending`. Raises `InvalidPayload` for a name that no queue
        can have.
        """
        own = partial(moved_to, queue)
        return self._call(Event.REROUTE, job_id, reason, on_behalf_of, if_version, own)

    async def areroute(
        self,
        job_id: str,
        queue: str,
        *,
        reason: str | None,
        on_behalf_of: str | None = None,
        if_version: int | None = None,
    ) -> VerbOutcome:
        """Move a job as `reroute` does, in a thread."""
        behalf, version = on_behalf_of, if_version
        call = partial(self.reroute, reason=reason, on_behalf_of=behalf, if_version=version)
        return await asyncio.to_thread(call, job_id, queue)

    def _call(
        self,
        event: Event,
        job_id: str,
        reason: str | None,
        on_behalf_of: str | None,
        if_version: int | None,
        own: Callable[[], Mapping[str, Any]] | None = None,
    ) -> VerbOutcome:
        identity = self._identity if isinstance(self._identity, Identity) else self._identity()
        requested = request_verb(
            self._engine,
            self._records,
            job_id,
            event,
            identity=identity,
            reason=reason,
            on_behalf_of=on_behalf_of,
            if_version=if_version,
            own=own,
            require_reason=self._require_reason,
        )
        return answers(self._engine, [requested], self._wait_s)[0]
