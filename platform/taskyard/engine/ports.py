"""The five ports of a worker's main process: what may be asked of the pool that runs its jobs.

Nothing else in the product asks the pool, so another pool can take its place. Operators' verbs,
drain, health and limits call these, and nothing of billiard, of Celery's worker or of kombu.

| port | who calls it | today's implementation |
| --- | --- | --- |
| `Messages`, `HeldMessage` | consumers, settlement, drain, cancel | `celery_messages` |
| `Attempts` | abort, limits | `celery_attempts` |
| `Work` | drain, health, heartbeats, the memory watch | `celery_attempts` |
| `Outcomes` | whatever ran the attempt, or saw its process end | `settling`; read by `reports` |
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
    """How a message goes back to its queue. RabbitMQ requeues it in its own way for all three."""

    AS_IT_CAME = "as it came"
    """As the next one of its queue, not counted as redelivered: nothing has begun it."""
    COUNTED = "counted"
    """As the last one, at once: a counter limits how often it comes back."""
    UNCOUNTED = "uncounted"
    """As the last one; a message that came back before waits first, so that it does not loop."""


class WaitsFor(StrEnum):
    """What a message that this worker holds waits for."""

    PROCESS = "process"
    DATE = "date"
    RATE_LIMIT = "rate limit"
    RETURN = "return"
    """To be given back: another attempt has the lease, or a server does not accept what is owed."""


class HeldMessage(Protocol):
    """A message that the broker has noted as unacknowledged for this worker.

    It is settled once, by `acknowledge` or by `reject`. A worker that dies before that gives it
    back: on RabbitMQ at once, on Redis when its heartbeat is 10 s old.
    """

    @property
    def message(self) -> Any:
        """The broker's message, as its transport has it."""

    def acknowledge(self) -> None:
        """Delete it at the broker; everything that is owed for it was published before.

        May be sent with the next pop. If the worker is killed before that, the message is delivered
        once more, and the record then says that nothing is left to run.
        """

    def reject(self, requeue: bool = False) -> None:
        """Give it back (`requeue`), or dead-letter it as rejected."""


class Messages(Protocol):
    """Take messages from the broker: pop, hold, acknowledge, give back.

    The implementation decides when it pops and how many; it passes each message to the consumer's
    guard (`JobConsumer.create_task_handler`). Guaranteed: the broker has noted a message as
    unacknowledged, in the step that took it from its queue, before the guard sees it.
    """

    @property
    def is_taking(self) -> bool:
        """Whether it takes messages."""

    def stop_taking(self) -> None:
        """Take no more messages, from any queue, also after the broker was lost and found again.

        What a pop brings after that goes back unchanged. What is held stays held.
        """

    def over_prefetch(self) -> int:
        """Return how many messages beyond the prefetch count wait here while no job ends."""

    def withdraw(
        self,
        job_ids: Collection[str] | None = None,
        *,
        waiting_for: Collection[WaitsFor] = tuple(WaitsFor),
        most: int | None = None,
    ) -> list[HeldMessage]:
        """Remove messages that nothing has begun from their line, the newest of each line first.

        Those of `job_ids` (default: all), at most `most`. No process will begin them, and the
        caller settles each: a cancelled job's message is acknowledged once the record is decided; a
        drain gives back what it withdraws unchanged. A worker killed in between gives all of them
        back. Messages that a process has already are not among them: a process begins by asking the
        record.
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

        If the connection was lost meanwhile, nothing is called: the broker has the message again.
        While fewer than `most` are held, another may be taken in the place of each.
        """

    def give_back(self, held: HeldMessage, way: WayBack) -> None:
        """Return a message to its queue."""

    def end_holding(self) -> None:
        """Give back at once what `hold` keeps (with `on_drain` if there is one), now and later."""


# -- 2. stop an attempt ----------------------------------------------------------------------------


class Force(StrEnum):
    """How an attempt is stopped."""

    SOFT = "soft"
    """`SoftTimeLimitExceeded` is raised in the handler, which may clean up, or go on."""
    HARD = "hard"
    """The process or greenlet that runs it ends at once, without clean-up."""


class Attempts(Protocol):
    """Stop attempts that run in this worker."""

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
    """An attempt that a process has taken, and whose end it has not reported.

    Times in microseconds.

    `token` is None before the attempt has begun in the record, after its outcome is recorded, and
    for a task that is only observed or off. `process` is the id of the process that runs it.
    """

    job_id: str
    job_type: str
    queue: str
    token: int | None
    started_us: int
    process: int


@dataclass(frozen=True, slots=True)
class WaitingMessage:
    """A message that this worker holds and has not begun; `tag` is the broker's name for it."""

    job_id: str
    job_type: str
    queue: str
    waits_for: WaitsFor
    tag: str


class Work(Protocol):
    """List what this worker has."""

    def running(self) -> list[RunningAttempt]:
        """Return the running attempts, oldest first; reads the record of each once.

        Raises redis-py's errors.
        """

    def waiting(self) -> list[WaitingMessage]:
        """Return messages that are held and not begun."""

    def processes_of_jobs(self) -> Mapping[str, int]:
        """Return the process of each running job, by job id; without a call to any server."""

    def held_tags(self, most: int) -> tuple[str, ...]:
        """Return the tags of messages taken to be run and not settled.

        None if there are over `most`.

        Any thread may call it.
        """

    def has_place(self, message: Any) -> bool:
        """Return whether a message was given a place in the pool, or in the line to it."""


# -- 4. report an outcome --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reported:
    """The attempt ended and its outcome is in the record; `end` requires more than that, or None.

    If the report is lost, the message comes again and `begin` finds the outcome.
    """

    end: End | None


@dataclass(frozen=True, slots=True)
class NoOutcome:
    """The attempt's process ended, or failed, without an outcome; `evidence` is for people.

    The record may hold one all the same: the process can have died between `finish` and its report.
    """

    evidence: str


@dataclass(frozen=True, slots=True)
class OverTime:
    """It was ended for its hard time limit, as `limit` says.

    A failure, about which the policy decides.
    """

    limit: str


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The records did not answer before it could begin, or before its outcome was recorded."""

    error: BaseException


Report = Reported | NoOutcome | OverTime | Unanswered


class Outcomes(Protocol):
    """Receives the end of one delivery, from whatever ran its attempt, in the main process."""

    def report(self, report: Report) -> None:
        """Settle the delivery as `report` says; after `Reported` only the acknowledgement is left.

        Raises nothing. What cannot be settled is held and then given back, and its next delivery
        finds the decision in the record. A second report of a settled delivery changes nothing.
        """


# -- 5. end a process ------------------------------------------------------------------------------


class Processes(Protocol):
    """The processes of this worker's pool."""

    def processes(self) -> list[int]:
        """Return their ids; empty if the pool runs jobs in the main process."""

    def end_process(self, pid: int) -> bool:
        """Kill one of them (SIGKILL); return whether it was one of this pool's that still ran.

        The pool replaces it. Its job is treated as after any death: what the process had reported
        or recorded before counts; else its begin counts as a death.

        Raises `NotSupportedByPool` if the pool has no processes of its own.
        """


@dataclass(frozen=True, slots=True)
class WorkerPorts:
    """The ports of one worker's main process; `Outcomes` belongs to each delivery."""

    messages: Messages
    attempts: Attempts
    work: Work
    processes: Processes
