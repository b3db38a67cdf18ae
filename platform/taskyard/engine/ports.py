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

Every call is made in the thread of the main loop, except where it says otherwise. No call waits for
a job. What is known here is in memory only and is lost with the process. That costs nothing: the
broker has each message as unacknowledged until it is settled, the record has each attempt, and both
give back what a dead worker had.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from taskyard.runner.settlement import End

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
    """The next one of its queue, and no redelivery: nothing has begun it."""
    COUNTED = "counted"
    """The last one, at once: a counter bounds how often it comes back."""
    UNCOUNTED = "uncounted"
    """The last one; what came back before waits first, or it would come and go without a pause."""


class WaitsFor(StrEnum):
    """What a message that this worker holds waits for."""

    PROCESS = "process"
    DATE = "date"
    RATE_LIMIT = "rate limit"
    RETURN = "return"
    """For its way back: another attempt has the lease, or a server does not take what it owes."""


class HeldMessage(Protocol):
    """A message that the broker has noted as unacknowledged for this worker.

    It is settled once, by `acknowledge` or by `reject`. A worker that dies before that gives it
    back: on RabbitMQ at once, on Redis when its heartbeat is 10 s old.
    """

    @property
    def message(self) -> Any:
        """The broker's message, as its transport has it."""

    def acknowledge(self) -> None:
        """Let the broker forget it; whatever it obliges to is published before, or it goes back.

        May be sent with the next pop. A worker killed before that gets it, or another worker does,
        once more: the record then says that nothing is left to run.
        """

    def reject(self, requeue: bool = False) -> None:
        """Give it back (`requeue`), or let it die of being rejected."""


class Messages(Protocol):
    """Take messages from the broker: pop, hold, acknowledge, give back.

    Popping is the implementation's own matter, as is how many it takes: it hands each message to
    the consumer's guard (`JobConsumer.create_task_handler`). Guaranteed: the broker has noted a
    message as unacknowledged, in the step that took it from its queue, before the guard sees it.
    """

    @property
    def is_taking(self) -> bool:
        """Whether it takes messages."""

    def stop_taking(self) -> None:
        """Take no more messages, from any queue, also after the broker was lost and found again.

        What a pop brings after that goes back as it came. What is held stays held.
        """

    def over_prefetch(self) -> int:
        """How many messages beyond the prefetch count wait here while no job ends any more."""

    def withdraw(
        self,
        job_ids: Collection[str] | None = None,
        *,
        waiting_for: Collection[WaitsFor] = tuple(WaitsFor),
        most: int | None = None,
    ) -> list[HeldMessage]:
        """Take messages that nothing has begun out of their line, the newest of each line first.

        Those of `job_ids` (default: all), at most `most`. No process begins them any more, and the
        caller settles each: a cancelled job's message is acknowledged once the record is decided, a
        drain gives back what it withdraws as it came. A worker killed in between gives all of them
        back. What a process was given already is not among them: it begins by asking the record.
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

        Where the connection was lost meanwhile, nothing is called: the broker has it back. While
        fewer than `most` are held, another may be taken in the place of each.
        """

    def give_back(self, held: HeldMessage, way: WayBack) -> None:
        """Return a message to its queue."""

    def end_holding(self) -> None:
        """Give back at once what `hold` keeps (by `on_drain` where there is one), now and later."""


# -- 2. stop an attempt ----------------------------------------------------------------------------


class Force(StrEnum):
    """How an attempt is stopped."""

    SOFT = "soft"
    """`SoftTimeLimitExceeded` is raised in the handler, which may clean up, or go on."""
    HARD = "hard"
    """What runs it ends at once, without clean-up."""


class Attempts(Protocol):
    """Stop attempts that run in this worker."""

    def stop(self, job_id: str, token: int, force: Force) -> bool:
        """Stop the attempt of a job that has `token`; whether it runs here and was asked to end.

        False, and nothing happens, where the record has a newer token or none, or where another
        worker runs it. It does not wait for the end. What becomes of the job is not decided here:
        a verb writes its decision into the record first, and the attempt's outcome is refused then.
        Without one, SOFT is the handler's failure (`timeout`) unless it returns all the same, and
        HARD a death as of any process. Stopping the same attempt again is harmless.

        Raises redis-py's errors where the record cannot be asked: nothing is stopped then. Raises
        `NotSupportedByPool` where the pool cannot stop an attempt in this way.
        """


# -- 3. list what runs and what waits --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunningAttempt:
    """What a process has taken and not reported the end of; times in microseconds.

    `token` is None before the attempt has begun in the record, after its outcome is recorded, and
    for a task that is only watched or off. `process` is the id of the process that runs it.
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
        """The attempts that run, oldest first; asks the records once for each.

        Raises redis-py's errors.
        """

    def waiting(self) -> list[WaitingMessage]:
        """What is held and not begun."""

    def processes_of_jobs(self) -> Mapping[str, int]:
        """The process of each job that runs, by job id; without a call to any server."""

    def held_tags(self, most: int) -> tuple[str, ...]:
        """The tags of what was taken to be run and is not settled; none where that is over `most`.

        Any thread may call it.
        """

    def has_place(self, message: Any) -> bool:
        """Whether a message was given a place in the pool, or in the line to it."""


# -- 4. report an outcome --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reported:
    """The attempt ended and its outcome is in the record; `end` obliges to more than that, or None.

    Should the report be lost, the message comes again and `begin` finds the outcome.
    """

    end: End | None


@dataclass(frozen=True, slots=True)
class NoOutcome:
    """What ran the attempt ended, or broke, without an outcome; `evidence` is for people.

    The record may hold one all the same: the process can have died between `finish` and its report.
    """

    evidence: str


@dataclass(frozen=True, slots=True)
class OverTime:
    """It was ended for its hard time limit, as `limit` says: a failure, which the policy judges."""

    limit: str


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The records did not answer before it could begin, or before its outcome was recorded."""

    error: BaseException


Report = Reported | NoOutcome | OverTime | Unanswered


class Outcomes(Protocol):
    """The end of one delivery, from whatever ran its attempt to the main process."""

    def report(self, report: Report) -> None:
        """Settle the delivery as `report` says; `Reported` alone leaves the acknowledgement.

        Raises nothing. What cannot be settled is held and then given back, and its next delivery
        finds in the record what was decided. A second report of a settled delivery changes nothing.
        """


# -- 5. end a process ------------------------------------------------------------------------------


class Processes(Protocol):
    """The processes of this worker's pool."""

    def processes(self) -> list[int]:
        """Their ids; empty where the pool runs jobs in the main process."""

    def end_process(self, pid: int) -> bool:
        """Kill one of them (SIGKILL); whether it was one of this pool's that still ran.

        The pool replaces it. The job that it ran is judged as after any death: what the process had
        reported or recorded before counts; else its begin counts as a death.

        Raises `NotSupportedByPool` where the pool has no processes of its own.
        """


@dataclass(frozen=True, slots=True)
class WorkerPorts:
    """What the main process of one worker can be asked; `Outcomes` is each delivery's own."""

    messages: Messages
    attempts: Attempts
    work: Work
    processes: Processes
