"""Every verb on live jobs, in every situation, at every place: state, audit rows, message.

No cell is left out: the table has one for each verb, situation and place.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
from sqlalchemy import Engine, select

from servers import Servers
from support.operated import DONE, WHY
from support.verb_stages import FILLERS, Job, Stage, staged
from support.waiting import eventually
from taskyard.audit import rows_of
from taskyard.control import VerbOutcome
from taskyard.database.tables import AUDIT, LETTERS
from taskyard.errors import Refused
from taskyard.jobs.states import State
from taskyard.records import Records

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True
pytestmark = pytest.mark.slow

VERBS: Final = ("cancel", "abort", "complete", "reroute")
PLACES: Final = ("redis", "rabbitmq", "app on redis", "app on rabbitmq")
SITUATIONS: Final = (
    "queued",
    "no worker",
    "delayed",
    "prefetched",
    "running",
    "hung",
    "retrying",
    "dead-lettered",
    "completed",
    "failed",
    "cancelled",
    "aborted",
    "no record",
)
WAITING: Final = ("queued", "no worker", "delayed", "prefetched", "no record")
ENDED: Final = ("completed", "failed", "cancelled", "aborted")
RESULT: Final = "by hand"


@dataclass(frozen=True)
class Cell:
    """What a verb leads to: the job's state, the last audit row, how often the job ran.

    `message` is what becomes of the job's message: `none` (it has none), `ends` (whoever takes it
    acknowledges it), `waits` (no worker reads its queue), `held` (by the process that hangs),
    `runs` (in its new queue), `stays` (in its own).
    """

    state: State
    answer: str
    runs: int
    message: str
    rows: int = 2


def _cell(verb: str, situation: str, place: str) -> Cell:
    """The table, written as rules; each is a sentence of docs/states.md."""
    ran = 1 if situation in ("running", "hung", "retrying", "dead-lettered", *ENDED) else 0
    if situation in ENDED:
        return _of_ended(verb, situation)
    if verb == "reroute":
        return _of_reroute(situation, place, ran)
    if verb == "cancel" and situation == "running":
        return Cell(State.COMPLETED, "refused", 1, "ends")
    if verb == "cancel" and situation == "hung":
        return Cell(State.RUNNING, "requested", 1, "held", rows=1)
    ends = {"cancel": State.CANCELLED, "abort": State.ABORTED, "complete": State.COMPLETED}
    message = {"dead-lettered": "none", "no worker": "waits"}.get(situation, "ends")
    return Cell(ends[verb], "applied", ran, message)


def _of_ended(verb: str, situation: str) -> Cell:
    ran = 1 if situation == "completed" else 0
    if (verb, situation) == ("cancel", "cancelled"):
        return Cell(State.CANCELLED, "applied", ran, "none")
    return Cell(State(situation), "refused", ran, "none", rows=1)


def _of_reroute(situation: str, place: str, ran: int) -> Cell:
    if situation == "dead-lettered":
        return Cell(State.DEAD_LETTERED, "refused", 1, "none", rows=1)
    if situation == "no worker":
        return NO_WORKER[place]
    if situation == "no record" and not place.startswith("app"):
        # Nothing says which workers know its task, so it runs where it is.
        return Cell(State.COMPLETED, "refused", 1, "stays")
    return Cell(State.COMPLETED, "applied", ran + 1, "runs")


_MOVED: Final = Cell(State.COMPLETED, "applied", 1, "runs")
_STAYS: Final = Cell(State.REROUTED, "requested", 0, "waits", rows=1)
NO_WORKER: Final = {place: _MOVED if place == "redis" else _STAYS for place in PLACES}
"""Without any worker on the old queue the relay moves a message of Redis whose queue the record
names. RabbitMQ keeps its message, and of a task without a record nothing says where it waits."""

TABLE: Final = {
    (verb, situation, place): _cell(verb, situation, place)
    for verb in VERBS
    for situation in SITUATIONS
    for place in PLACES
}


def situated(stage: Stage, situation: str) -> Job:
    """A job in the situation; what is common to both kinds of workers."""
    match situation:
        case "queued" | "prefetched":
            release = stage.fill(FILLERS if situation == "queued" else 2)
            return Job(stage.simple(), release)
        case "cancelled" | "aborted" | "failed":
            job_id = str(uuid.uuid4())
            verb = stage.control.abort if situation == "aborted" else stage.control.cancel
            settled(stage, verb(job_id, reason=WHY))
            if situation == "failed":  # no verb leads there yet
                records = stage.control._records
                assert isinstance(records, Records)
                records.client.hset(records.keys.record(job_id), "state", "failed")
            return Job(job_id)
        case _:
            return stage.make(situation)


@pytest.fixture(scope="module", params=PLACES)
def stage(
    request: pytest.FixtureRequest,
    servers: Servers,
    database: Engine,
    database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, Stage]]:
    folder = tmp_path_factory.mktemp("matrix")
    with staged(request.param, servers, database, database_url, folder) as made:
        yield request.param, made


def rows(stage: Stage, request_id: uuid.UUID) -> list[str]:
    with stage.database.connect() as connection:
        return [row["outcome"] for row in rows_of(connection, request_id)]


def settled(stage: Stage, outcome: VerbOutcome, count: int = 2) -> list[str]:
    eventually(
        lambda: len(rows(stage, outcome.request_id)) == count,
        f"{count} audit rows",
        why=lambda: f"{outcome} {rows(stage, outcome.request_id)}\n{stage.logs()}",
    )
    return rows(stage, outcome.request_id)


def act(stage: Stage, verb: str, job_id: str) -> VerbOutcome:
    facts: dict[str, Any] = {"reason": WHY}
    match verb:
        case "complete":
            return stage.control.complete(job_id, summary=DONE, result=RESULT, **facts)
        case "reroute":
            return stage.control.reroute(job_id, stage.other, **facts)
        case _:
            outcome: VerbOutcome = getattr(stage.control, verb)(job_id, **facts)
            return outcome


def last_denial(stage: Stage, job_id: str) -> list[str]:
    """The audit rows of the last call about a job."""
    with stage.database.connect() as connection:
        query = select(AUDIT.c.outcome).where(AUDIT.c.target_request_id == job_id)
        return list(connection.scalars(query.order_by(AUDIT.c.id.desc()).limit(1)))


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_does_what_the_table_says(
    stage: tuple[str, Stage], verb: str, situation: str
) -> None:
    place, at = stage
    cell = TABLE[verb, situation, place]
    job = situated(at, situation)
    before = at.state(job.job_id)
    if cell.answer == "refused" and cell.rows == 1:
        with pytest.raises(Refused) as refusal:
            act(at, verb, job.job_id)
        assert at.state(job.job_id) is before is cell.state
        [row] = last_denial(at, job.job_id)
        assert row == f"refused: {refusal.value}"
        return
    outcome = act(at, verb, job.job_id)
    job.release()
    audited = settled(at, outcome, cell.rows)
    assert audited[0] == "requested"
    assert audited[-1].partition(":")[0] == cell.answer, audited
    eventually(
        lambda: (at.state(job.job_id), at.runs(job.job_id)) == (cell.state, cell.runs),
        f"{cell}",
        why=lambda: f"{at.fields(job.job_id)} {at.runs(job.job_id)}\n{at.logs()}",
    )
    check_message(at, job, cell, verb)


def check_message(stage: Stage, job: Job, cell: Cell, verb: str) -> None:
    match cell.message:
        case "waits":
            assert stage.waiting("locator") > 0
        case "held":  # the process that hangs is ended, so that the next test has it
            settled(stage, stage.control.abort(job.job_id, reason=WHY))
            eventually(lambda: stage.state(job.job_id) is State.ABORTED, "its end")
        case "none" if verb != "cancel" or stage.state(job.job_id) is not State.CANCELLED:
            check_letter(stage, job)
        case "ends" if cell.runs == 0:
            eventually(
                lambda: "kept" not in stage.fields(job.job_id),
                "its message was seen",
                why=lambda: f"{stage.fields(job.job_id)}\n{stage.logs()}",
            )
        case "runs":
            assert stage.fields(job.job_id)["queue"] == stage.other


def check_letter(stage: Stage, job: Job) -> None:
    with stage.database.connect() as connection:
        query = select(LETTERS.c.status).where(LETTERS.c.original_request_id == job.job_id)
        assert list(connection.scalars(query)) in (["cancelled"], ["completed"])


def test_the_table_has_every_cell() -> None:
    assert len(TABLE) == len(VERBS) * len(SITUATIONS) * len(PLACES)
    assert {cell.answer for cell in TABLE.values()} == {"applied", "refused", "requested"}
