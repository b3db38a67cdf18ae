"""`Control`: operators' verbs for programs, by one identity."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

from sqlalchemy import Engine

from taskyard import database
from taskyard.access import Identity
from taskyard.control.authenticate_operator import identify
from taskyard.control.forced_result import forced_result
from taskyard.control.job_snapshot import ReadsRecords
from taskyard.control.live_verb import WAIT_S, VerbOutcome, answers, moved_to, request_verb
from taskyard.control.operator_reasons import Mode
from taskyard.control.purge_outcome import PurgeCounts, PurgeOutcome
from taskyard.control.switch_request import KnownNames, SwitchRequest
from taskyard.control.turn_switch import SwitchTurned, naming_break_glass, turn_switch
from taskyard.jobs.states import Event
from taskyard.records import Records
from taskyard.settings import Settings, load
from taskyard.store import connect
from taskyard.switches import Kind, RedisSwitches
from taskyard.switches import Mode as SwitchMode

# Imported at run time it would load Celery for every verb.
if TYPE_CHECKING:
    from taskyard.control.explain import Explanation

__all__ = ["Control", "SwitchOptions"]


class SwitchOptions(TypedDict, total=False):
    """What a pause or a kill switch may be given.

    `until`, an aware time, or `lasts` is its end; by default it has none. With `force` the name of
    the queue, job type or domain may be one that this process does not know: of an app whose
    settings are elsewhere.
    """

    until: datetime | None
    lasts: timedelta | None
    force: bool
    on_behalf_of: str | None


class Control:
    """Operators' verbs: permitted, reasoned, audited, and carried out by the relay.

    Those that turn switches act at once and return a `SwitchTurned`; `pending` means that Redis did
    not answer. Each verb on a job waits `wait_s` for the relay and returns a `VerbOutcome`;
    `pending` means that the relay will carry it out, or waits for a running attempt to end. Any
    thread may call it; the methods that begin with `a` are for coroutines.

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
        switches: RedisSwitches | None = None,
    ) -> None:
        """Set who acts: an identity, or a function that verifies it for each verb.

        Only verbs that turn switches need `switches`.
        """
        self._switches = switches
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
            # An operator waits for the answer; the relay repeats what Redis does not take at once.
            closing(connect(known.need_redis_url(), retries=1, timeout_s=1)) as quick,
            database.opened(url, application_name="taskyard control") as engine,
        ):
            verified = partial(identify, engine, known, source="Control")
            verified()  # a refused token is refused before the first verb
            mode = known.require_reason
            switches = RedisSwitches(quick, known.namespace)
            yield cls(
                engine, Records(client, known), verified, require_reason=mode, switches=switches
            )

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

    def purge_queue(
        self,
        queue: str,
        *,
        reason: str | None,
        on_behalf_of: str | None = None,
        at_most: int | None = None,
        delayed: bool = False,
        app: Any = None,
        progress: Callable[[PurgeCounts], None] | None = None,
    ) -> PurgeOutcome:
        """Cancel each job that waits in a queue, then remove its message; each is audited.

        If more than `at_most` messages wait, nothing is done. `delayed` includes what waits for its
        time; at RabbitMQ those messages stay, and the worker that takes one skips it. `app` is the
        Celery app of an installed app's queue, so that its result backend hears of each job.
        `progress` is called after each 200 messages. Raises also `NotFound` for an unknown queue,
        `GateClosed`, and `PurgeStopped` if a server fails in the middle: call it again then.
        """
        from taskyard.control.purge_queue import (  # noqa: PLC0415 - brings Celery and kombu
            purge_queue,
        )
        from taskyard.install import AnyQueuePublisher  # noqa: PLC0415 - the same

        settings = self._records.settings
        with (
            closing(connect(settings.need_redis_url())) as client,
            closing(AnyQueuePublisher(settings, Records(client, settings))) as publisher,
        ):
            return purge_queue(
                self._engine,
                Records(client, settings),
                publisher,
                queue,
                identity=self._verified(),
                reason=reason,
                on_behalf_of=on_behalf_of,
                require_reason=self._require_reason,
                at_most=at_most,
                delayed=delayed,
                app=app,
                progress=progress,
            )

    async def apurge_queue(
        self,
        queue: str,
        *,
        reason: str | None,
        on_behalf_of: str | None = None,
        at_most: int | None = None,
        delayed: bool = False,
        app: Any = None,
    ) -> PurgeOutcome:
        """Purge a queue as `purge_queue` does, in a thread."""
        bounds: dict[str, Any] = {"at_most": at_most, "delayed": delayed, "app": app}
        call = partial(self.purge_queue, reason=reason, on_behalf_of=on_behalf_of, **bounds)
        return await asyncio.to_thread(call, queue)

    def explain(self, job_id: str) -> Explanation:
        """Return why a job is where it is, and the commands that would move it; changes nothing.

        A server of the records or the broker that does not answer is in `Explanation.unknown`. It
        takes a few seconds at most. Raises `NotFound` for a job outside the identity's bounds.
        """
        from taskyard.control.explain import explain  # noqa: PLC0415 - verbs need no broker

        settings = self._records.settings
        return explain(settings, job_id, engine=self._engine, reader=self._verified())

    async def aexplain(self, job_id: str) -> Explanation:
        """Explain a job as `explain` does, in a thread."""
        return await asyncio.to_thread(self.explain, job_id)

    def pause_queue(
        self, queue: str, *, reason: str | None, **options: Unpack[SwitchOptions]
    ) -> SwitchTurned:
        """Pause a queue: workers take nothing from it, and `enqueue` still accepts.

        What runs runs on. A paused queue may be paused again, with another end or reason.
        """
        return self._turn(Kind.PAUSE, f"queue:{queue}", SwitchMode.HOLD, reason, options)

    async def apause_queue(
        self, queue: str, *, reason: str | None, **options: Unpack[SwitchOptions]
    ) -> SwitchTurned:
        """Pause a queue as `pause_queue` does, in a thread."""
        return await asyncio.to_thread(self.pause_queue, queue, reason=reason, **options)

    def resume_queue(
        self, queue: str, *, reason: str | None, on_behalf_of: str | None = None
    ) -> SwitchTurned:
        """End the pause of a queue; raises `Refused` if it is not paused."""
        options = SwitchOptions(on_behalf_of=on_behalf_of)
        return self._turn(Kind.PAUSE, f"queue:{queue}", SwitchMode.OFF, reason, options)

    async def aresume_queue(
        self, queue: str, *, reason: str | None, on_behalf_of: str | None = None
    ) -> SwitchTurned:
        """End the pause of a queue as `resume_queue` does, in a thread."""
        call = partial(self.resume_queue, reason=reason, on_behalf_of=on_behalf_of)
        return await asyncio.to_thread(call, queue)

    def kill(
        self,
        on: str,
        *,
        reason: str | None,
        hold: bool = False,
        **options: Unpack[SwitchOptions],
    ) -> SwitchTurned:
        """Turn the kill switch on for `all`, `queue:NAME`, `type:NAME` or `domain:NAME`.

        New work is refused; with `hold` also what waits is held. What runs runs on.
        """
        mode = SwitchMode.HOLD if hold else SwitchMode.REFUSE
        return self._turn(Kind.KILL, on, mode, reason, options)

    async def akill(
        self,
        on: str,
        *,
        reason: str | None,
        hold: bool = False,
        **options: Unpack[SwitchOptions],
    ) -> SwitchTurned:
        """Turn the kill switch on as `kill` does, in a thread."""
        return await asyncio.to_thread(self.kill, on, reason=reason, hold=hold, **options)

    def lift(self, on: str, *, reason: str | None, on_behalf_of: str | None = None) -> SwitchTurned:
        """Turn the kill switch on `on` off; raises `Refused` if it is off."""
        options = SwitchOptions(on_behalf_of=on_behalf_of)
        return self._turn(Kind.KILL, on, SwitchMode.OFF, reason, options)

    async def alift(
        self, on: str, *, reason: str | None, on_behalf_of: str | None = None
    ) -> SwitchTurned:
        """Turn the kill switch off as `lift` does, in a thread."""
        call = partial(self.lift, reason=reason, on_behalf_of=on_behalf_of)
        return await asyncio.to_thread(call, on)

    def _turn(
        self,
        kind: Kind,
        on: str,
        mode: SwitchMode,
        reason: str | None,
        options: SwitchOptions,
    ) -> SwitchTurned:
        if self._switches is None:
            raise TypeError("this Control was made without `switches`: use Control.opened()")
        with naming_break_glass():
            identity = self._verified()
        known = partial(KnownNames.of, self._records.settings, self._switches.client)
        return turn_switch(
            self._engine,
            self._switches,
            SwitchRequest(kind, on, mode, options.get("until"), options.get("lasts")),
            identity=identity,
            reason=reason,
            on_behalf_of=options.get("on_behalf_of"),
            require_reason=self._require_reason,
            names=None if options.get("force") else known,
        )

    def _verified(self) -> Identity:
        return self._identity if isinstance(self._identity, Identity) else self._identity()

    def _call(
        self,
        event: Event,
        job_id: str,
        reason: str | None,
        on_behalf_of: str | None,
        if_version: int | None,
        own: Callable[[], Mapping[str, Any]] | None = None,
    ) -> VerbOutcome:
        requested = request_verb(
            self._engine,
            self._records,
            job_id,
            event,
            identity=self._verified(),
            reason=reason,
            on_behalf_of=on_behalf_of,
            if_version=if_version,
            own=own,
            require_reason=self._require_reason,
        )
        return answers(self._engine, [requested], self._wait_s)[0]
