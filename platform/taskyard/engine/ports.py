"""The five ports of a worker's main process: what may be asked of the pool that runs its jobs.

Nothing else in the product asks the pool, so another pool can take its place. Operators' verbs,
drain, health and limits call these, and nothing of billiard, of Celery's worker or of kombu.

| port | who calls it | today's implementation |
| --- | --- | --- |
| `Messages`, `HeldMessage` | consumers, settlement, drain, cancel | `celery_messages` |
| `Attempts` | abort, limits | `celery_attempts` |
| `Work` | drain, health, heartbeats, the memory watch | `celery_attempts` |
| `Outcomes` | what ran the attempt, or saw its end | `settle_delivery`, `pool_reports` |
| `Processes` | operators, health | `celery_attempts` |

Every call is made in the thread of the main loop, unless it says otherwise. No call waits for a
job. What is known here is in memory only and is lost with the process. That is safe: the broker has
each message as unacknowledged until it is settled, the record has each attempt, and both recover
what a dead worker had.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from taskyard.runner.settlement_rules import End

__all__ = [
    "Attempts",
    "Force",
    "HeldMessage",
    "Messages",
    "NoOutcome",
    "Outcomes",
    "OverTime",
    "Processes",
    "Report",
    "Reported",
    "RunningAttempt",
    "Unanswered",
    "WaitingMessage",
    "WaitsFor",
    "WayBack",
    "Work",
    "WorkerPorts",
]


# -- 1. take messages ------------------------------------------------------------------------------


class WayBack(StrEnum):
    """How a message returns to its queue; RabbitMQ requeues it in one way for all of them."""

    AS_IT_CAME = "as it came"
    """As the next one of its queue, not counted as redelivered, because no process began it."""
    COUNTED = "counted"
    """As the last one of its queue, at once, because a counter limits how often it returns."""
    UNCOUNTED = "uncounted"
    """As the last one of its queue; a message that returned before waits first, against a loop."""


class WaitsFor(StrEnum):
    """The reason why a message waits in this worker."""

    PROCESS = "process"
    DATE = "date"
    RATE_LIMIT = "rate limit"
    RETURN = "return"
    """For its return: another attempt has the lease, or a server refuses a publication."""


class HeldMessage(Protocol):
    """A message that the broker has recorded as unacknowledged for this worker.

    The message is settled once, by `acknowledge` or by `reject`. If the worker dies before
    that, the message returns to its queue: with RabbitMQ at once, with Redis when the worker's
    heartbeat is 10 s old.
    """

    @property
    def message(self) -> Any:
        """Return the broker's message, as its transport has it."""

    def acknowledge(self) -> None:
        """Delete the message at the broker; everything that it requires was published before.

        The acknowledgement may be sent with the next request for messages. If the worker is
        killed before that, the message is delivered once more, and the record then says
        that nothing is left to run.
        """

    def reject(self, requeue: bool = False) -> None:
        """Put the message back into its queue (`requeue`), or dead-letter it as rejected."""


class Messages(Protocol):
    """The port to the broker's messages: take, hold, acknowledge and return them.

    The implementation decides when it takes messages and how many; it passes each message to
    the consumer's guard (`JobConsumer.create_task_handler`). It guarantees that the broker has
    recorded a message as unacknowledged, in the step that took it from its queue, before the
    guard sees it.
    """

    @property
    def is_taking(self) -> bool:
        """Return whether this worker takes messages."""

    def stop_taking(self) -> None:
        """Take no more messages from any queue, even after a lost connection is opened again.

        Messages that a pending request brings after that return to their queues unchanged.
        Held messages stay held.
        """

    def over_prefetch(self) -> int:
        """Return by how many waiting messages the prefetch count is exceeded while no job ends."""

    def withdraw(
        self,
        job_ids: Collection[str] | None = None,
        *,
        queues: Collection[str] | None = None,
        waiting_for: Collection[WaitsFor] = tuple(WaitsFor),
        most: int | None = None,
    ) -> list[HeldMessage]:
        """Remove messages that nothing has begun from their lines, the newest of each line first.

        They are those of `job_ids` (default: all) from `queues` (the broker's names; default: all),
        at most `most`. No process will begin
        them, and the caller settles each: a cancelled job's message is acknowledged once
        the record is decided; a drain returns what it withdraws unchanged. If the worker is
        killed in between, all of them return. Messages that a process has already are not
        among them: a process begins by asking the record.
        """

    def hold(
        self,
        message: Any,
        give_back: Callable[[], object],
        wait_s: float,
        *,
        most: int = ...,
        on_drain: Callable[[], object] | None = None,
    ) -> None:
        """Keep a message that cannot be settled now, and call `give_back` after `wait_s`.

        If the connection was lost meanwhile, nothing is called, because the broker delivers
        the message again. While fewer than `most` messages are held, another may be taken
        in the place of each.
        """

    def return_held(self, message: Any, give_back: Callable[[], object]) -> bool:
        """Take no more from the message's queue, because a switch holds it; call `give_back` soon.

        What else nothing has begun of the queue returns too, in its order. Any thread may call
        it. Return False, and do nothing, if the worker takes the message in another way than by its
        queue's name.
        """

    def bare(self, message: Any) -> HeldMessage:
        """Return a message that no request settles."""

    def give_back(self, held: HeldMessage, way: WayBack) -> None:
        """Put a held message back into its queue."""

    def end_holding(self) -> None:
        """Put the messages that `hold` keeps back into their queues, now and later.

        `on_drain` is called for a message that has one.
        """


# -- 2. stop an attempt ----------------------------------------------------------------------------


class Force(StrEnum):
    """How an attempt is stopped."""

    SOFT = "soft"
    """The handler gets `SoftTimeLimitExceeded`; it may clean up, or continue."""
    HARD = "hard"
    """The process or greenlet that runs it ends at once, without clean-up."""


class Attempts(Protocol):
    """The port to running attempts: stop them."""

    @property
    def can_stop(self) -> bool:
        """Return whether this pool can stop an attempt; any thread may ask."""

    def runs(self, job_id: str) -> bool:
        """Return whether an attempt of the job runs in this worker; any thread may ask."""

    def stop(self, job_id: str, token: int, force: Force) -> bool:
        """Stop the attempt of a job that has `token`.

        Return whether it runs here and was asked to end.

        False, and nothing happens, if the record has a newer token or none, or if another worker
        runs it. It does not wait for the end. It does not decide about the job: a verb writes its
        decision into the record first, and the attempt's outcome is refused then. Without such a
        decision, SOFT is the handler's failure (`timeout`) unless it returns all the same, and HARD
        is a death like that of any process. Stopping the same attempt again is harmless.

        Raises redis-py's errors if the record cannot be read: nothing is stopped then. Raises
        `NotSupportedByPool` if the pool cannot stop an attempt in this way.
        """


# -- 3. list what runs and what waits --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunningAttempt:
    """An attempt that a process runs, and whose end the process has not reported.

    Times in microseconds.

    `token` is None before the attempt has begun in the record, after its outcome is recorded,
    and for a task that is only observed or off. `process` is the id of the process that runs
    it.
    """

    job_id: str
    job_type: str
    queue: str
    token: int | None
    started_us: int
    process: int


@dataclass(frozen=True, slots=True)
class WaitingMessage:
    """A message that this worker holds and has not begun; `tag` is its delivery tag."""

    job_id: str
    job_type: str
    queue: str
    waits_for: WaitsFor
    tag: str


class Work(Protocol):
    """The port that lists the running and waiting jobs of this worker."""

    def running(self) -> list[RunningAttempt]:
        """Return the running attempts, oldest first.

        Their records are read once each. Raises redis-py's errors.
        """

    def waiting(self) -> list[WaitingMessage]:
        """Return the messages that this worker holds and that no process has begun."""

    def processes_of_jobs(self) -> Mapping[str, int]:
        """Return the process id of each running job, by job id, without a call to any server."""

    def held_tags(self, most: int) -> tuple[str, ...]:
        """Return the tags of messages taken to be run and not settled.

        None if there are over `most`.

        Any thread may call it.
        """

    def has_place(self, message: Any) -> bool:
        """Return whether the pool, or the line that leads to it, has a place for this message."""


# -- 4. report an outcome --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reported:
    """A report that the attempt's outcome is in the record.

    `end` is what else must be published, or None. If the report is lost, the message is
    delivered again and `begin` finds the outcome.
    """

    end: End | None


@dataclass(frozen=True, slots=True)
class NoOutcome:
    """A report that the attempt's process ended or failed without an outcome.

    `evidence` is for people. The record may have an outcome all the same, because the process
    can have died between `finish` and its report.
    """

    evidence: str


@dataclass(frozen=True, slots=True)
class OverTime:
    """A report that the attempt was ended at its hard time limit, as `limit` says.

    It is a failure, so the policy decides about a retry.
    """

    limit: str


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A report that the records did not answer, before the attempt began or before its outcome."""

    error: BaseException


Report = Reported | NoOutcome | OverTime | Unanswered


class Outcomes(Protocol):
    """The port that receives the end of one delivery in the main process."""

    def report(self, report: Report) -> None:
        """Settle the delivery as `report` says; after `Reported` only the acknowledgement is left.

        Raises nothing. A delivery that cannot be settled is held and later returns to its
        queue, and the next delivery finds the decision in the record. A second report of a
        settled delivery changes nothing.
        """


# -- 5. end a process ------------------------------------------------------------------------------


class Processes(Protocol):
    """The port to the processes of this worker's pool."""

    def processes(self) -> list[int]:
        """Return the process ids; empty if the pool runs jobs in the main process."""

    def end_process(self, pid: int) -> bool:
        """Kill one process of the pool (SIGKILL); return False if the pool has no such process.

        The pool replaces the process. Its job is treated as after any death: what the
        process had reported or recorded before counts; otherwise its begin counts as a
        death. Raises `NotSupportedByPool` if the pool has no processes of its own.
        """


@dataclass(frozen=True, slots=True)
class WorkerPorts:
    """The ports of one worker's main process; each delivery has an `Outcomes` of its own."""

    messages: Messages
    attempts: Attempts
    work: Work
    processes: Processes
