"""Everything that is known about one job: its live record and its history in the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from taskyard import database, ledger
from taskyard.clock import from_us
from taskyard.errors import NotFound, ServerRefused, ServerUnreachable, TaskyardError
from taskyard.inspection.job_holder import JobHolder, find_holder
from taskyard.inspection.queue_counts import QueueState
from taskyard.inspection.queue_of_job import start_worker, state_of
from taskyard.jobs.states import State
from taskyard.ops.cli.jobs.current_cause import with_current_cause
from taskyard.ops.cli.jobs.find_job_by_id import find_in_ledger, find_job, no_job
from taskyard.ops.cli.jobs.ledger_outage import LEDGER_OUTAGE
from taskyard.ops.cli.queues.no_consumer_text import WAITING
from taskyard.records import Record, Records
from taskyard.settings import Settings
from taskyard.store import reachable
from taskyard.wire.letter_envelope import letter_id

__all__ = ["JobView", "Ledger", "look_up", "read_ledger"]

_RECORDS: Final = "Redis"  # how errors name the records' server


@dataclass(frozen=True, slots=True)
class Ledger:
    """The part of a job's view that comes from Postgres.

    `row` is None if Postgres does not know the job, `events` are the job's history. `outage` is
    why Postgres did not answer; then `row` and `events` mean nothing.
    """

    row: dict[str, Any] | None = None
    events: Sequence[dict[str, Any]] = ()
    outage: TaskyardError | None = None

    @property
    def unknown(self) -> str | None:
        """Return why the ledger did not answer, in words."""
        return None if self.outage is None else str(self.outage)


@dataclass(frozen=True, slots=True)
class JobView:
    """Record and ledger of one job side by side.

    `place` is the queue in which a waiting job waits, or to which the message of a dead worker's
    job returns; or why the broker could not say.
    `start_worker` is set if no worker consumes that queue. `outage` is why the record could not be
    read; then `record` is empty and means nothing. `holder` says which worker holds the job.
    """

    record: Record
    ledger: Ledger
    place: QueueState | TaskyardError | None = None
    start_worker: str | None = None
    outage: TaskyardError | None = None
    holder: JobHolder | None = None

    @property
    def record_unknown(self) -> str | None:
        """Return why the record could not be read, in words."""
        return None if self.outage is None else str(self.outage)

    @property
    def job_id(self) -> str:
        """The whole id."""
        return self.record.job_id

    @property
    def state(self) -> State:
        """Return the record's state, or the ledger's if the record expired or cannot be read."""
        if self.record.state is State.NONE and self.ledger.row is not None:
            return State(self.ledger.row["state"])
        return self.record.state

    @property
    def letter(self) -> str | None:
        """The dead letter of a dead-lettered job."""
        if self.state is not State.DEAD_LETTERED:
            return None
        if self.record.state is State.NONE:
            return str((self.ledger.row or {}).get("letter_id") or "") or None
        return letter_id(self.job_id, self.record.epoch, self.record.generation)

    def fact(self, name: str) -> Any:
        """Return a fact from the record, or from the ledger if the record lacks the fact."""
        live = self.record.fields.get({"job_type": "type"}.get(name, name))
        return live or (self.ledger.row or {}).get(name)

    @property
    def generation(self) -> int:
        """The number of replays."""
        if self.outage is None:
            return self.record.generation
        return int((self.ledger.row or {}).get("generation") or 0)

    @property
    def admitted_at(self) -> datetime | None:
        """When this epoch began."""
        if self.outage is None:
            return from_us(self.record.epoch) if self.record.epoch else None
        admitted: datetime | None = (self.ledger.row or {}).get("admitted_at")
        return admitted

    @property
    def attempts(self) -> int | None:
        """Return how often a worker began the job in this generation, with the running attempt."""
        begun = _count(self.record, "begins")
        return (self.ledger.row or {}).get("attempts") if begun is None else begun

    @property
    def pending_request(self) -> str | None:
        """Return the request of an operator that the job's attempt or message has still to meet."""
        name = {State.RUNNING: "cancel", State.REROUTED: "verb"}.get(self.state)
        return None if name is None else self.record.fields.get(name)

    @property
    def next(self) -> str | None:
        """The command that an operator would run next, None if nothing is left to do."""
        match self.state:
            case State.RUNNING | State.REROUTED if self.pending_request:
                return f"taskyard audit show {self.pending_request}"
            case State.ACCEPTED | State.RUNNING | State.RETRYING | State.REROUTED:
                return self.start_worker or f"taskyard jobs wait {self.job_id}"
            case State.DEAD_LETTERED:
                return f"taskyard dlq show {self.letter}"
            case State.COMPLETED:
                return f"taskyard jobs wait {self.job_id}"
            case _:
                return None

    def document(self) -> dict[str, Any]:
        """Return the view as one JSON document."""
        return {
            "job_id": self.job_id,
            "state": self.state,
            "type": self.fact("job_type"),
            "domain": self.fact("domain"),
            "queue": self.fact("queue"),
            "letter": self.letter,
            "record": self._live(),
            "record_unknown": self.record_unknown,
            "pending_request": self.pending_request,
            "ledger": "unknown" if self.ledger.unknown else self.ledger.row,
            "ledger_unknown": self.ledger.unknown,
            "history": self.ledger.events,
            "workers": self._workers(),
            "hands": None if self.holder is None else self.holder.document(),
            "next": self.next,
        }

    def _workers(self) -> int | str | None:
        """Return how many workers consume the waiting job's queue; None if it does not wait."""
        match self.place:
            case None:
                return None
            case QueueState(consumers=int() as consumers):
                return consumers
            case _:
                return "unknown"

    def _live(self) -> dict[str, Any] | str | None:
        record = self.record
        if self.outage is not None:
            return "unknown"
        if record.state is State.NONE:
            return None
        return {
            "state": record.state,
            "epoch": record.epoch,
            "admitted_at": from_us(record.epoch),
            "generation": record.generation,
            "attempts": _count(record, "begins"),
            "failures": _count(record, "attempts"),
            "deaths": _count(record, "deaths"),
            "progress": record.progress,
            "cause": record.cause,
            "failed_attempts": [note.model_dump() for note in record.history],
        }


def _count(record: Record, name: str) -> int | None:
    """Return a counter; None if the record of an ended job no longer keeps it."""
    return record.number(name) if name in record.fields else None


def look_up(settings: Settings, records: Records, name: str) -> JobView:
    """Return the view of the one job whose id is, or begins with, `name`.

    If Redis does not answer, the view has only the ledger's part; the error of Redis is raised if
    the ledger has no such job either. Raises the errors of `find_job`, and the ledger's error if
    the job has no record and Postgres does not answer.
    """
    try:
        job_id = find_job(settings, records, name)
        with reachable(settings.need_redis_url()):
            record = records.read(job_id)
    except (ServerUnreachable, ServerRefused) as error:
        if error.role != _RECORDS:
            raise
        return _by_ledger(settings, name, error)
    view = JobView(record, read_ledger(settings, job_id))
    if view.state is State.NONE and view.ledger.row is None:
        if view.ledger.outage is not None:
            raise view.ledger.outage
        raise no_job(settings, records, name)
    holder = find_holder(settings, records, record)
    return _with_place(settings, replace(view, holder=holder))


def _by_ledger(settings: Settings, name: str, outage: TaskyardError) -> JobView:
    job_id = find_in_ledger(settings, name)
    known = None if job_id is None else read_ledger(settings, job_id)
    if job_id is None or known is None or known.row is None:
        raise outage
    return _with_place(settings, JobView(Record(job_id, {}), known, outage=outage))


def _with_place(settings: Settings, view: JobView) -> JobView:
    queue = view.fact("queue")
    orphaned = view.holder is not None and view.holder.orphaned
    if not queue or not (orphaned or view.state in WAITING):
        return view
    place = state_of(settings, queue)
    in_vain = isinstance(place, QueueState) and place.unserved
    start = start_worker(settings, queue) if in_vain else None
    return replace(view, place=place, start_worker=start)


def read_ledger(settings: Settings, job_id: str) -> Ledger:
    """Return the ledger's part.

    An unreachable Postgres is reported, never shown as a missing job.
    """
    try:
        with (
            database.opened(settings.need_database_url()) as engine,
            engine.connect() as connection,
        ):
            events = ledger.history(connection, job_id)
            row = ledger.job(connection, job_id)
    except NotFound:
        return Ledger()
    except LEDGER_OUTAGE as error:
        return Ledger(outage=error)
    return Ledger(with_current_cause(row), events)
