"""The pipeline of one attempt, in the child process.

begin -> (run | done | decided | held | stale | ended | reused) -> decode -> invoke -> judge ->
finish.
Two round trips to Redis for a job that succeeds: `begin` and `finish`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_never

from taskyard.clock import Clock
from taskyard.errors import DeadLettered
from taskyard.jobs import JobContext
from taskyard.jobs.outcomes import Completed, Decision, Failed, Failure, Outcome, Retrying
from taskyard.jobs.policies import Category
from taskyard.jobs.registry import Handler
from taskyard.records import (
    BeginAnswer,
    Decided,
    Done,
    Ended,
    Held,
    Records,
    Reused,
    Run,
    Stale,
    Superseded,
    UnknownHistory,
    WithoutRun,
)
from taskyard.records.answers import Finished
from taskyard.runner.cause import death_of, decision_of, plain_failure
from taskyard.runner.failures import failure_here
from taskyard.runner.invoke import invoke, payload_of
from taskyard.runner.judge import Rules, judge
from taskyard.runner.lease import Lease, LeaseKeeper
from taskyard.runner.patience import AFTER, BEFORE, ask
from taskyard.runner.process_end import ProcessEnd
from taskyard.runner.results import EncodeResult, encode_result
from taskyard.runner.shield import exposed, shielded
from taskyard.runner.signals import JobDeferred, JobIdReused, JobRetrying, JobSkipped
from taskyard.wire.headers import Stamp
from taskyard.wire.letters import letter_id
from taskyard.wire.logs import logger

__all__ = ["Delivery", "Runner"]

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of a message, as the child knows it."""

    job_id: str
    job_type: str
    queue: str
    priority: int | None
    stamp: Stamp | None
    holder: str
    process: str
    worker: str
    time_limit_s: float | None


DecodeResult = Callable[[bytes], Any]


class Runner:
    """Runs attempts in one process."""

    def __init__(self, records: Records, rules: Rules, clock: Clock) -> None:
        self.records = records
        self.rules = rules
        self.clock = clock
        self._keeper = LeaseKeeper(records.settings.lease_s)
        self._of_thread = threading.local()
        # Holders of deliveries that the worker has ended in this very process, in a greenlet.
        self.killed: set[str] = set()

    @property
    def _loops(self) -> asyncio.Runner:
        """The event loop of this thread, which is kept for its next attempts."""
        if not hasattr(self._of_thread, "loops"):
            self._of_thread.loops = asyncio.Runner()
        loops: asyncio.Runner = self._of_thread.loops
        return loops

    def run(
        self,
        handler: Handler,
        delivery: Delivery,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        encode: EncodeResult,
        decode: DecodeResult,
    ) -> Any:
        """Run one attempt and return the job's result.

        Raises `JobRetrying`, `JobDeferred`, `JobSkipped`, `JobIdReused` or `DeadLettered` for the
        main process to act on, and `Reject(requeue=True)` where Redis cannot be asked.
        """
        with shielded():
            answer = self._begin(delivery)
            if not isinstance(answer, Run):
                return self._without_run(delivery, answer, decode)
            with self._leased(delivery, answer) as lease:
                outcome = self._attempt(handler, delivery, answer, lease, args, kwargs)
            outcome, stored = self._checked(outcome, delivery, answer, encode)
            return self._finish(delivery, answer, outcome, stored)

    def run_part(
        self, handler: Handler, args: Sequence[Any], kwargs: Mapping[str, Any], context: JobContext
    ) -> Any:
        """Call a handler within the attempt that `context` is of; raises what it raises."""
        return invoke(handler, payload_of(args, kwargs), context, self._loops)

    # -- begin ---------------------------------------------------------------------------------

    def _begin(self, delivery: Delivery) -> BeginAnswer:
        return ask(
            "begin",
            delivery.job_id,
            lambda: self.records.begin(
                delivery.job_id,
                delivery.stamp,
                holder=delivery.holder,
                process=delivery.process,
                worker=delivery.worker,
                job_type=delivery.job_type,
                queue=delivery.queue,
                priority=delivery.priority,
            ),
            BEFORE,
        )

    def _without_run(self, delivery: Delivery, answer: WithoutRun, decode: DecodeResult) -> Any:
        match answer:
            case Done(meta):
                if meta is None:
                    raise JobSkipped(f"{JobSkipped.DONE}; its result has expired")
                return decode(meta)
            case Decided(decision=Decision.RETRYING):
                raise JobRetrying(
                    answer.seq, answer.due_us, answer.epoch, answer.generation, "decided before"
                )
            case Decided():
                raise self._dead(delivery.job_id, answer.epoch, answer.generation)
            case Held(remaining_us):
                raise JobDeferred(remaining_us, "another attempt holds the lease")
            case Stale(state) | Ended(state):
                raise JobSkipped(f"the job is {state}; this message is older")
            case Reused(job_type, state, epoch):
                raise JobIdReused(job_type, state, epoch)
            case UnknownHistory():
                return self._without_run(delivery, self._condemn(delivery), decode)
            case _:
                assert_never(answer)

    def _dead(self, job_id: str, epoch: int, generation: int) -> DeadLettered:
        cause = ask("read", job_id, lambda: self.records.read(job_id), BEFORE).cause
        letter = letter_id(job_id, epoch, generation)
        return DeadLettered(letter, cause.get("code", ""), cause.get("message", ""))

    def _condemn(self, delivery: Delivery) -> Decided | Held | Stale | Ended | Reused:
        """Let a job of unknown history die, unless another delivery of it has come further."""
        outcome = plain_failure(
            Category.UNKNOWN_HISTORY,
            "unknown_history",
            "UnknownHistory",
            "the job has no record and its message is older than the dedupe window "
            f"({self.records.settings.dedupe_window_s} s): it may have run before",
        )
        return ask(
            "condemn",
            delivery.job_id,
            lambda: self.records.condemn(
                delivery.job_id,
                delivery.stamp,
                job_type=delivery.job_type,
                queue=delivery.queue,
                priority=delivery.priority,
                **death_of(outcome),
            ),
            BEFORE,
        )

    # -- the attempt ---------------------------------------------------------------------------

    def _leased(self, delivery: Delivery, run: Run) -> _Watch:
        lease = Lease(self.records, delivery.job_id, run.token, _cancelled=run.cancel != "")
        return _Watch(self._keeper, lease)

    def _attempt(
        self,
        handler: Handler,
        delivery: Delivery,
        run: Run,
        lease: Lease,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Outcome:
        end = self._process_end(delivery)
        try:
            payload = payload_of(args, kwargs)
            context = self._context(delivery, run, lease)
            with exposed():
                return Completed(invoke(handler, payload, context, self._loops))
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its failure
            end.go_on(error)
            failure = failure_here(delivery.job_type, error)
            return self._judge(failure, delivery, run)

    def _process_end(self, delivery: Delivery) -> ProcessEnd:
        return ProcessEnd(lambda: delivery.holder in self.killed, delivery.time_limit_s)

    def _judge(self, failure: Failure, delivery: Delivery, run: Run) -> Retrying | Failed:
        override = None if delivery.stamp is None else delivery.stamp.policy
        policy = self.rules.policy(delivery.job_type, override)
        return judge(failure, run.attempts + 1, policy, self.rules.rng)

    def _context(self, delivery: Delivery, run: Run, lease: Lease) -> JobContext:
        limit = delivery.time_limit_s
        return JobContext(
            job_id=delivery.job_id,
            job_type=delivery.job_type,
            attempt=run.attempt,
            token=run.token,
            epoch=run.epoch,
            deadline=None if limit is None else self.clock.now() + timedelta(seconds=limit),
            link=lease,
            _once=_once,
        )

    # -- finish --------------------------------------------------------------------------------

    def _checked(
        self, outcome: Outcome, delivery: Delivery, run: Run, encode: EncodeResult
    ) -> tuple[Outcome, bytes]:
        """The outcome and its stored form; a result that cannot be stored is a failure."""
        if not isinstance(outcome, Completed):
            return outcome, b""
        stored = encode_result(outcome.value, encode, self.records.settings.max_result_bytes)
        if isinstance(stored, Failure):
            return self._judge(stored, delivery, run), b""
        return outcome, stored

    def _finish(self, delivery: Delivery, run: Run, outcome: Outcome, stored: bytes) -> Any:
        answer = self._decide(delivery, run, outcome, stored)
        if isinstance(answer, Superseded):
            log.warning(
                "job %s: this attempt's outcome came too late, the job is %s",
                delivery.job_id,
                answer.state,
                extra={"action": "superseded", "job_id": delivery.job_id},
            )
            raise JobSkipped(f"superseded: the job is {answer.state}")
        match outcome:
            case Completed(value):
                return value
            case Retrying(failure, _):
                text = f"{failure.code}: {failure.message[:200]}"
                raise JobRetrying(answer.seq, answer.due_us, run.epoch, run.generation, text)
            case Failed(failure, _, _):
                letter = letter_id(delivery.job_id, run.epoch, run.generation)
                raise DeadLettered(letter, failure.code, failure.message)

    def _decide(
        self, delivery: Delivery, run: Run, outcome: Outcome, stored: bytes
    ) -> Finished | Superseded:
        facts = decision_of(outcome, stored)
        return ask(
            "finish",
            delivery.job_id,
            lambda: self.records.finish(
                delivery.job_id,
                epoch=run.epoch,
                generation=run.generation,
                seq=run.seq,
                token=run.token,
                **facts,
            ),
            AFTER,
        )


class _Watch:
    """A lease under the keeper's eye."""

    def __init__(self, keeper: LeaseKeeper, lease: Lease) -> None:
        self._keeper, self._lease = keeper, lease

    def __enter__(self) -> Lease:
        self._keeper.watch(self._lease)
        return self._lease

    def __exit__(self, *_: object) -> None:
        self._keeper.release(self._lease)


def _once(session: Any, job_key: str, step: str) -> bool:
    # SQLAlchemy is needed by handlers that have a database, not by every worker.
    from taskyard.inbox import once  # noqa: PLC0415

    return once(session, job_key, step)
