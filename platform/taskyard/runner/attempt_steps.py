"""The steps of every attempt in the child process; the runners put them together.

begin -> (run | done | decided | held | stale | ended | reused | switched) -> leased -> finish. If
Redis does not answer, the call is repeated within the limits of the step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, assert_never

from taskyard.clock import Clock
from taskyard.errors import DeadLettered
from taskyard.jobs import JobContext
from taskyard.jobs.attempt_outcomes import Decision, Failed, Failure, Retrying, cause_summary
from taskyard.jobs.states import State
from taskyard.records import (
    BeginAnswer,
    DeadLetterAnswer,
    Decided,
    Done,
    Ended,
    Forward,
    Held,
    Records,
    Reused,
    Run,
    Stale,
    Switched,
    UnknownHistory,
    WithoutRun,
)
from taskyard.records.script_replies import Finished
from taskyard.runner.child_exceptions import (
    JobDeferred,
    JobForwarded,
    JobIdReused,
    JobRetrying,
    JobSkipped,
    JobSwitchedOff,
)
from taskyard.runner.death_causes import unknown_history
from taskyard.runner.lease import Lease, LeaseKeeper
from taskyard.runner.process_end import ProcessEnd
from taskyard.runner.redis_retry import AFTER, BEFORE, RetryLimits, retry_redis
from taskyard.runner.retry_decision import Rules, judge
from taskyard.runner.settlement_rules import by_operator, superseded_by
from taskyard.runner.stored_decision import death_of
from taskyard.wire.letter_envelope import letter_id
from taskyard.wire.redacted_logs import logger
from taskyard.wire.stamp_header import Stamp

__all__ = ["AttemptSteps", "DecodeResult", "Delivery", "WatchedLease"]

log = logger(__name__)

DecodeResult = Callable[[bytes], Any]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of a message, with the facts that the child process knows."""

    job_id: str
    job_type: str
    queue: str
    stamp: Stamp | None
    holder: str
    process: str
    worker: str
    time_limit_s: float | None
    credential: str | None = field(default=None, repr=False)


class AttemptSteps:
    """The steps of an attempt that read or write the job's record.

    `before` and `after` are the retry limits for Redis before and after the handler runs.
    `keeper` renews the leases; by default a new one is made.
    """

    def __init__(
        self,
        records: Records,
        rules: Rules,
        clock: Clock,
        *,
        keeper: LeaseKeeper | None = None,
        before: RetryLimits = BEFORE,
        after: RetryLimits = AFTER,
    ) -> None:
        self.records, self.rules, self.clock = records, rules, clock
        self.before, self.after = before, after
        # Holders of deliveries that the worker has ended in this very process, in a greenlet.
        self.killed: set[str] = set()
        self._keeper = keeper or LeaseKeeper(records.settings.lease_s)

    def begin(self, delivery: Delivery) -> BeginAnswer:
        """Ask the job's record for the right to run.

        Raises `Unreachable` if Redis does not answer.
        """
        return retry_redis(
            "begin",
            delivery.job_id,
            lambda: self.records.attempts.begin(
                delivery.job_id,
                delivery.stamp,
                holder=delivery.holder,
                process=delivery.process,
                worker=delivery.worker,
                job_type=delivery.job_type,
                queue=delivery.queue,
            ),
            self.before,
        )

    def without_run(  # noqa: C901 - one match, one answer a case
        self, delivery: Delivery, answer: WithoutRun, decode: DecodeResult
    ) -> Any:
        """Return the result of a completed job; otherwise raise what the main process must do.

        That is `JobRetrying`, `JobDeferred`, `JobSkipped`, `JobForwarded`, `JobIdReused` or
        `DeadLettered`.
        """
        match answer:
            case Done(meta):
                if meta is None:
                    raise JobSkipped(f"{JobSkipped.DONE}; the stored result has expired")
                return decode(meta)
            case Decided(decision=Decision.RETRYING):
                raise JobRetrying(
                    answer.seq, answer.due_us, answer.epoch, answer.generation, "decided before"
                )
            case Decided():
                raise self._dead(delivery.job_id, answer.epoch, answer.generation)
            case Held(remaining_us):
                raise JobDeferred(remaining_us, "another attempt holds the lease")
            case Stale(state):
                raise JobSkipped(
                    f"the job is {state}; this message is an older one of the job and does not run"
                )
            case Ended(state):
                raise JobSkipped(
                    f"the job is {state}, so its message does not run", by_operator(state)
                )
            case Forward():
                raise _forwarded(answer)
            case Reused(job_type, state, epoch):
                raise JobIdReused(job_type, state, epoch)
            case Switched(switch, until_us, mode):
                raise JobSwitchedOff(str(switch), until_us, mode)
            case UnknownHistory():
                return self.without_run(delivery, self._dead_letter(delivery), decode)
            case _:
                assert_never(answer)

    def _dead(self, job_id: str, epoch: int, generation: int) -> DeadLettered:
        cause = retry_redis("read", job_id, lambda: self.records.read(job_id), self.before).cause
        letter = letter_id(job_id, epoch, generation)
        return DeadLettered(letter, cause.get("code", ""), cause_summary(cause))

    def _dead_letter(self, delivery: Delivery) -> DeadLetterAnswer:
        """Dead-letter a job of unknown history, unless another delivery decided first."""
        outcome = unknown_history(self.records.settings.dedupe_window_s)
        return retry_redis(
            "condemn",
            delivery.job_id,
            lambda: self.records.attempts.dead_letter(
                delivery.job_id,
                delivery.stamp,
                job_type=delivery.job_type,
                queue=delivery.queue,
                **death_of(outcome),
            ),
            self.before,
        )

    # -- the attempt ---------------------------------------------------------------------------

    def leased(self, delivery: Delivery, run: Run) -> WatchedLease:
        """Keep the attempt's lease renewed inside the block."""
        lease = Lease(self.records, delivery.job_id, run.token, _cancelled=run.cancel != "")
        return WatchedLease(self._keeper, lease)

    def process_end(self, delivery: Delivery) -> ProcessEnd:
        """Return the object that distinguishes a handler's failure from the end of this process."""
        return ProcessEnd(lambda: delivery.holder in self.killed, delivery.time_limit_s)

    def judge(self, failure: Failure, delivery: Delivery, run: Run) -> Retrying | Failed:
        """Return the outcome of a failed attempt, by the policy of its message or its job type."""
        override = None if delivery.stamp is None else delivery.stamp.policy
        policy = self.rules.policy(delivery.job_type, override)
        return judge(failure, run.attempts + 1, policy, self.rules.rng)

    def context(self, delivery: Delivery, run: Run, lease: Lease) -> JobContext:
        """Return the context object that the handler gets."""
        limit = delivery.time_limit_s
        return JobContext(
            job_id=delivery.job_id,
            job_type=delivery.job_type,
            attempt=run.attempt,
            token=run.token,
            epoch=run.epoch,
            deadline=None if limit is None else self.clock.now() + timedelta(seconds=limit),
            link=lease,
            credential=delivery.credential,
            _once=_once,
        )

    # -- finish --------------------------------------------------------------------------------

    def finish(self, delivery: Delivery, run: Run, **facts: Any) -> Finished:
        """Record the outcome of the attempt, with the arguments of `AttemptScripts.finish`.

        Raises `JobSkipped` if another attempt or an operator decided first, `JobForwarded` if an
        operator has moved the job.
        """
        job_id = delivery.job_id
        answer = retry_redis(
            "finish",
            job_id,
            lambda: self.records.attempts.finish(
                job_id,
                epoch=run.epoch,
                generation=run.generation,
                seq=run.seq,
                token=run.token,
                **facts,
            ),
            self.after,
        )
        if isinstance(answer, Finished):
            return answer
        state = State.REROUTED if isinstance(answer, Forward) else answer.state
        log.warning(
            "job %s: the outcome of this attempt is dropped, because the job is already %s",
            job_id,
            state,
            extra={"action": "superseded", "job_id": job_id},
        )
        if isinstance(answer, Forward):
            raise _forwarded(answer)
        raise JobSkipped(
            f"another attempt or an operator decided first: the job is {state}",
            superseded_by(state),
        )


def _forwarded(answer: Forward) -> JobForwarded:
    return JobForwarded(answer.queue, answer.epoch, answer.generation, answer.seq)


class WatchedLease:
    """A lease that the lease keeper renews."""

    def __init__(self, keeper: LeaseKeeper, lease: Lease) -> None:
        self._keeper, self._lease = keeper, lease

    def __enter__(self) -> Lease:
        self._keeper.watch(self._lease)
        return self._lease

    def __exit__(self, *_: object) -> None:
        self._keeper.release(self._lease)


def _once(session: Any, job_key: str, step: str) -> bool:
    # Only handlers with a database need SQLAlchemy, not every worker.
    from taskyard.inbox import once  # noqa: PLC0415

    return once(session, job_key, step)
