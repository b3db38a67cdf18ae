"""The yard in memory: the client's API, and a worker that runs when a test calls it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from taskyard.client import JobHandle
from taskyard.clock import from_us
from taskyard.errors import NotFound, TaskyardError
from taskyard.jobs import Catalogue, JobType, registry
from taskyard.jobs.handler_registry import Handler, Registry
from taskyard.jobs.letter_states import ENDINGS, LetterStatus
from taskyard.jobs.states import Event, State
from taskyard.runner import Rules
from taskyard.settings import Settings
from taskyard.testing.attempts import EagerRunner, off_the_loop
from taskyard.testing.broker import Message, SentReply
from taskyard.testing.client import MemoryClient
from taskyard.testing.clock import YardClock
from taskyard.testing.faults import Fault, Faults
from taskyard.testing.held import Held
from taskyard.testing.inbox import MemoryInbox
from taskyard.testing.letters import UNSET, LetterShelf, Replays
from taskyard.testing.operator import MemoryOperator
from taskyard.testing.switches import YardSwitches
from taskyard.testing.worker import MemoryWorker
from taskyard.wire.letter_envelope import Letter

# Its package needs SQLAlchemy, which a yard without operators does not.
if TYPE_CHECKING:
    from taskyard.control.explain import Explanation

__all__ = ["Yard"]

# Production would never stop with a job that enqueues itself; a test must fail.
BUSIEST: Final = 10_000


class LiveCatalogue(Catalogue):
    """A catalogue that also has the job types that decorators define later."""

    def __init__(self, base: Catalogue, handlers: Registry) -> None:
        super().__init__({})
        self._base, self._handlers = base, handlers
        self._merged: tuple[tuple[Handler, ...], Catalogue] | None = None

    def _now(self) -> Catalogue:
        handlers = self._handlers.handlers()
        if self._merged is None or self._merged[0] != handlers:
            # A test's settings need not name the files of types that the test does not use.
            merged = self._handlers.under(self._base, skip_without_queue=True)
            self._merged = (handlers, merged)
        return self._merged[1]

    def __getitem__(self, name: str) -> JobType:
        """Return the job type called `name`; raises `UnknownJobType` with the nearest names."""
        return self._now()[name]

    def __contains__(self, name: object) -> bool:
        """Return whether the job type is defined."""
        return name in self._now()

    def __iter__(self) -> Iterator[str]:
        """Return the names in the order of their definition."""
        return iter(self._now())

    def __len__(self) -> int:
        """Return how many job types there are."""
        return len(self._now())

    def with_type(self, job_type: JobType) -> Catalogue:
        """Return a copy of the catalogue that also has `job_type`."""
        return LiveCatalogue(self._base.with_type(job_type), self._handlers)


class Yard(MemoryClient):
    """A `Taskyard` in memory; what is enqueued waits until `run`, `run_one`, `advance`, `settle`.

    `handlers` are those of `taskyard.jobs.job` unless given; import the module that registers
    yours. `switches` turns pauses and kill switches. With `run_on_wait` jobs also run while a job's
    result is awaited, and the clock moves meanwhile; else `clock` moves only when the test moves
    it. Jitter comes from `seed`, so a run repeats.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        catalogue: Catalogue | None = None,
        *,
        handlers: Registry = registry,
        clock: YardClock | None = None,
        seed: int = 0,
        run_on_wait: bool = False,
    ) -> None:
        given = Settings() if settings is None else settings
        base = Catalogue.of(given) if catalogue is None else catalogue
        known = LiveCatalogue(base, handlers)
        super().__init__(given, known, YardClock() if clock is None else clock)
        self.run_on_wait = run_on_wait
        self.inbox = MemoryInbox()
        self._letters = LetterShelf()
        self._faults = Faults()
        self._served: Message | None = None
        self._worker = self._make_worker(handlers, seed)
        self._operator = MemoryOperator(self.records, self.broker)
        self.switches = YardSwitches(self.records)
        self._held = Held(self.switches.stored)

    def _make_worker(self, handlers: Registry, seed: int) -> MemoryWorker:
        rules = Rules(self.catalogue, random.Random(seed))  # noqa: S311 - jitter is no secret
        return MemoryWorker(
            records=self.records,
            broker=self.broker,
            letters=self._letters,
            handlers=handlers,
            catalogue=self.catalogue,
            rules=rules,
            runner=EagerRunner(self.records, rules, self.clock),
            faults=self._faults,
        )

    # -- running -------------------------------------------------------------------------------

    def run(self) -> int:
        """Process every message that is due now, and those that become due by it.

        Returns how many messages were processed. Retries and countdowns that wait for their
        time are not processed.
        """
        for served in range(BUSIEST):
            if not self.run_one():
                return served
        raise TaskyardError(
            f"the yard is still busy after {BUSIEST} messages; does a job enqueue itself? "
            "Serve them one at a time with yard.run_one()"
        )

    def run_one(self) -> bool:
        """Process the most urgent message that is due now; return False if there is none."""
        if self._served is not None:
            raise TaskyardError(
                "a handler cannot run the yard that runs it; enqueue from the handler, and let the "
                "test call run() again"
            )
        self.broker.promote(self.clock.now_us())
        self.broker.release(self._held.is_on)
        message = self.broker.pop(self._held.holds)
        if message is None:
            return False
        self._served = message
        try:
            off_the_loop(lambda: self._worker.serve(message))
        finally:
            self._served = None
        self._operator.look_again()
        return True

    def advance(self, by: timedelta) -> int:
        """Move the clock and process every message when it is due; return how many messages."""
        end = self.clock.now() + by
        served = self.run()
        while (due_us := self._next_due_us()) is not None and from_us(due_us) <= end:
            self._move_to(from_us(due_us))
            served += self.run()
        self._move_to(end)
        return served

    def settle(self) -> int:
        """Process everything, and move the clock as far as needed; return how many messages."""
        served = self.run()
        while (due_us := self._next_due_us()) is not None:
            self._move_to(from_us(due_us))
            served += self.run()
            if served > BUSIEST:
                raise TaskyardError(
                    f"the yard still has waiting messages after {served} messages; does a job "
                    "enqueue itself or retry for ever? Use advance(timedelta) to process a "
                    "limited time"
                )
        return served

    def wait_until(self, ended: Callable[[], bool], timeout: timedelta | float | None) -> bool:
        """Process messages until `ended()`, for `timeout` (s) of the clock; None has no limit.

        Returns False, and does nothing, without `run_on_wait` and inside a handler.
        """
        if not self.run_on_wait or self._served is not None:
            return False
        end = None if timeout is None else self.clock.now() + _duration(timeout)
        for _ in range(BUSIEST):
            if ended():
                return True
            if self.run_one():
                continue
            due_us = self._next_due_us()
            if due_us is None or (end is not None and from_us(due_us) > end):
                break
            self._move_to(from_us(due_us))
        if end is not None and not ended():
            self._move_to(end)
        return True

    def _next_due_us(self) -> int | None:
        """Return when a message is due next, perhaps because a switch ends; None if never."""
        ends = self._held.next_end_us() if len(self.broker) else None
        times = (self.broker.next_due_us(), ends)
        return min((due_us for due_us in times if due_us is not None), default=None)

    def _move_to(self, moment: datetime) -> None:
        # A handler may have moved the clock further.
        self.clock.advance(max(moment - self.clock.now(), timedelta(0)))

    # -- what goes wrong -----------------------------------------------------------------------

    def kill_next_attempt(
        self,
        job: JobHandle | None = None,
        *,
        times: int = 1,
        after_handler: bool = False,
        whole_worker: bool = False,
        before_begin: bool = False,
    ) -> None:
        """Kill the process of the next `times` attempts of `job`, or of any job.

        The process dies before the handler's first line. With `after_handler` it dies after
        the last line: the handler's effect exists, but its outcome is not recorded. With
        `whole_worker` no process writes to the record either: the next delivery waits until
        the lease has expired. With `before_begin` the worker dies when it has the message
        but not yet a lease; then deliveries are counted, not deaths.
        """
        job_id = None if job is None else job.job_id
        self._faults.coming += [Fault(job_id, after_handler, whole_worker, before_begin)] * times

    def overtake(self) -> None:
        """Stall this attempt and run another attempt of its job; only a handler may call it.

        The clock moves by the duration of a lease, so that the other attempt gets the
        lease. Back in the handler, `context.cancelled` is true, `context.once` raises
        `LeaseLost`, and the outcome will not be recorded: a store that checks the fencing
        token must handle this.
        """
        if self._served is None:
            raise TaskyardError(
                "yard.overtake() may only be called by a handler, while yard.run() runs it"
            )
        message = replace(self._served, redelivered=True)
        with self._worker.runner.stalled():
            self.clock.advance(timedelta(seconds=self.settings.lease_s))
            off_the_loop(lambda: self._worker.serve(message))

    def redeliver(self, job: JobHandle | str, *, first: bool = False) -> None:
        """Deliver the last message of a job, or its first message, once more; raises `NotFound`."""
        delivered = self.broker.delivered.get(_id_of(job))
        if not delivered:
            raise NotFound(
                f"no message of job {_id_of(job)} was delivered yet, so there is nothing to "
                "deliver again; call yard.run() first"
            )
        self.broker.put_back(delivered[0 if first else -1])

    # -- dead letters --------------------------------------------------------------------------

    @property
    def letters(self) -> list[Letter]:
        """Return every dead letter, oldest first; replayed ones included."""
        return self._letters.all()

    def letter_status(self, letter: Letter) -> LetterStatus:
        """Return the status of a dead letter: `pending`, `manual_review` or `replayed`."""
        return self._letters.status(letter)

    def replay(
        self,
        what: Letter | JobHandle | str,
        *,
        payload: Any = UNSET,
        queue: str | None = None,
        force: bool = False,
    ) -> JobHandle:
        """Replay a dead letter; the job then waits to run.

        The argument is the dead letter, its id, or its job's id. Raises `Refused` as the
        operators' verb does: for a second replay, for an expired dead letter without
        `force`, for a failed validation without another `payload`. Needs SQLAlchemy, which
        `taskyard[testing]` installs.
        """
        letter = what if isinstance(what, Letter) else self._letters.find(_id_of(what))
        replays = Replays(self.settings, self.records, self.broker, self._letters)
        replays.replay(letter, payload=payload, queue=queue, force=force)
        return self.job(letter.job_id)

    # -- operators -----------------------------------------------------------------------------

    def cancel(self, job: JobHandle | str) -> State:
        """Cancel a job as an operator does; return the state that it has now.

        A job whose handler runs stays `running`: `context.cancelled` becomes true when the
        clock has moved by a third of a lease, and the end of the attempt decides. Raises
        `Refused` for a job that has ended otherwise.
        """
        return self._operate(Event.CANCEL, _id_of(job))

    def abort(self, job: JobHandle | str) -> State:
        """Abort a job as an operator does; the outcome of a running attempt is dropped.

        Unlike a worker, this yard cannot stop the handler. Raises `Refused` for a job that has
        ended.
        """
        return self._operate(Event.ABORT, _id_of(job))

    def force_complete(
        self, job: JobHandle | str, result: Any = None, *, summary: str | None = None
    ) -> State:
        """Complete a job with a result as an operator does; `summary` goes into the reply.

        The outcome of a running attempt is dropped. Raises `Refused` for a job that has ended.
        """
        return self._operate(Event.FORCE_COMPLETE, _id_of(job), result, summary)

    def reroute(self, job: JobHandle | str, queue: str) -> State:
        """Move a job to another queue as an operator does.

        Its message follows when the yard takes it from the old queue; until then the job is
        `rerouted`. The outcome of a running attempt is dropped, and the job runs again from its new
        queue. Raises `UnknownQueue`, and `Refused` for a job that has ended, is a dead letter, or
        is in that queue.
        """
        self.settings.queue(queue)
        return self._operate(Event.REROUTE, _id_of(job), queue)

    def purge(self, queue: str, *, delayed: bool = False) -> int:
        """Cancel each job that waits in a queue and remove its message, as `queues purge` does.

        `delayed` includes what waits for its time. Returns how many jobs were cancelled. A message
        stays if it is that of a moved job, or what follows its completed job is still to be
        published. Raises `UnknownQueue`. Needs SQLAlchemy, which `taskyard[testing]` installs.
        """
        from taskyard.testing.purge import purge  # noqa: PLC0415 - SQLAlchemy is an extra

        self.settings.queue(queue)
        return purge(self.records, self.broker, self._operator, queue, delayed=delayed)

    def _operate(
        self, event: Event, job_id: str, own: Any = None, summary: str | None = None
    ) -> State:
        answer = self._operator.operate(event, job_id, own, summary)
        if answer in ENDINGS:
            self._letters.close(job_id, ENDINGS[answer])
        return answer

    @property
    def replies(self) -> list[SentReply]:
        """Return the replies to services whose jobs an operator has ended, oldest first.

        A job has one if it was enqueued with `reply_to`. What a handler sends itself is not here.
        """
        return list(self.broker.replies)

    # -- the history of a job ------------------------------------------------------------------

    def explain(self, job: JobHandle | str) -> Explanation:
        """Return why a job is where it is, as `taskyard explain` says it.

        Needs SQLAlchemy, which `taskyard[testing]` installs.
        """
        from taskyard.testing.explain import explain  # noqa: PLC0415 - it needs SQLAlchemy

        return explain(self.records, self.broker, self._letters, _id_of(job))

    def events(self, job: JobHandle | str) -> list[str]:
        """Return the names of a job's events, in order: `admit`, `begin`, `retry`, ..."""
        return [event["event"] for event in self.records.events(_id_of(job))]


def _duration(timeout: timedelta | float) -> timedelta:
    return timeout if isinstance(timeout, timedelta) else timedelta(seconds=timeout)


def _id_of(job: JobHandle | str) -> str:
    return job if isinstance(job, str) else job.job_id
