"""A day of the yard: 200 jobs through every queue, and every outcome found wherever it is told.

The jobs run once, on two real workers with the real mirror; each test looks at one thing.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.exceptions import ChordError
from celery.result import AsyncResult
from sqlalchemy import Engine, func, select

from servers import Servers
from support.mirror import mirroring, stored_letters
from support.waiting import SOON_S, eventually
from support.worker import Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.client import JobHandle
from taskyard.database.tables import LEDGER, LETTERS
from taskyard.errors import DeadLettered
from taskyard.jobs.states import State
from taskyard.ledger import history
from taskyard.ledger import job as ledger_job
from taskyard.wire.letter_envelope import letter_id

JOBS = 200
ACTS = {"plan": "plan_act", "exec": "exec_act", "locator": "locator_act", "ops": "ops_act"}
LIMITS = {"hard limit": "hard_act", "soft limit": "soft_act"}
DUPLICATES = 5
# Three chains of three, a chord of three and one, two parts of a broken one, a key, two producers.
OTHERS = 9 + 4 + 2 + 1 + 2


@dataclass(frozen=True)
class Death:
    """How a job is enqueued that must die, and what must be told of it."""

    do: str
    category: str
    code: str
    runs: int
    job_type: str = "exec_act"
    eligible: bool = True
    options: dict[str, Any] = field(default_factory=dict)


DEATHS = {
    "an error that its type never retries": Death(
        "fail", "non_retryable", "hopeless", 1, "locator_act", options={"code": "hopeless"}
    ),
    "retries that are spent": Death("fail", "retry_exhausted", "flaky", 3),
    "retries that are spent, with waits, async": Death(
        "fail", "retry_exhausted", "flaky", 3, "plan_act"
    ),
    "retries that this enqueue forbade": Death(
        "fail", "retry_exhausted", "flaky", 1, options={"policy": {"max_retries": 0}}
    ),
    "a process that dies each time": Death("kill", "poison", "poison", 3),
    "the hard time limit": Death("hang", "timeout", "timeout", 1, "hard_act"),
    "the soft time limit": Death("hang", "timeout", "timeout", 1, "soft_act"),
    "an expiry that passed while it waited": Death(
        "return",
        "expired",
        "expired",
        0,
        eligible=False,
        options={"countdown": 0.6, "expires": 0.3},
    ),
    "a payload that its handler's model refuses": Death(
        "return", "validation_error", "validation_error", 0, eligible=False, options={"times": "x"}
    ),
    "a result that is too large": Death("big", "non_retryable", "result_too_large", 1),
    "a result that is not JSON": Death("not_json", "non_retryable", "result_invalid", 1),
    "a handler that leaves its process": Death("exit", "retry_exhausted", "system_exit", 3),
    "a handler out of memory": Death("memory", "retry_exhausted", "out_of_memory", 3),
}


@dataclass
class Day:
    """What was enqueued, by what must become of it."""

    harness: ServerHarness
    database: Engine
    plain: dict[str, tuple[JobHandle, int]] = field(default_factory=dict)
    misbehaving_once: dict[str, JobHandle] = field(default_factory=dict)
    duplicates: list[JobHandle] = field(default_factory=list)
    deaths: dict[str, JobHandle] = field(default_factory=dict)
    unknown_task: str = ""
    plain_celery: str = ""
    sent: list[AsyncResult] = field(default_factory=list)
    chains: dict[str, list[str]] = field(default_factory=dict)
    chord: str = ""
    broken_chord: str = ""
    broken_chord_part: str = ""

    def result(self, job_id: str) -> AsyncResult:
        """What a Celery client holds; made when needed, as it must not outlive the server."""
        return self.harness.yard.app.AsyncResult(job_id)

    @property
    def completed(self) -> list[JobHandle]:
        return [job for job, _ in self.plain.values()] + list(self.misbehaving_once.values())

    @property
    def dead(self) -> dict[str, str]:
        """Names of causes and ids of all that must be dead letters."""
        ids = {name: job.job_id for name, job in self.deaths.items()}
        return {
            **ids,
            "a task nobody has": self.unknown_task,
            "a chord's part": self.broken_chord_part,
        }

    def row(self, job_id: str) -> dict[str, Any]:
        with self.database.connect() as connection:
            return ledger_job(connection, job_id)

    def event_names(self, job: JobHandle | str) -> list[str]:
        """The events of a job in Postgres, whose versions must be complete."""
        with self.database.connect() as connection:
            events = history(connection, job if isinstance(job, str) else job.job_id)
        assert [event["version"] for event in events] == list(range(1, len(events) + 1))
        return [event["event"] for event in events]

    @property
    def job_ids(self) -> list[str]:
        with self.database.connect() as connection:
            return list(connection.scalars(select(LEDGER.c.job_id)))


@pytest.fixture(scope="module")
def day(
    servers: Servers, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Day]:
    settings = fresh_settings(servers.valkey_url())
    folder: Path = tmp_path_factory.mktemp("day")
    harness = ServerHarness(settings)
    with (
        Worker(settings, folder, name="left").launch() as left,
        Worker(settings, folder, name="right").launch() as right,
        mirroring(settings, database_url) as database,
    ):
        day = Day(harness, database)
        _enqueue(day)
        left.await_log(" ready.")
        right.await_log(" ready.")
        _await_evening(day)
        yield day
        del day
    harness.close()


def _enqueue(day: Day) -> None:
    harness, app = day.harness, day.harness.yard.app
    for name, death in DEATHS.items():
        day.deaths[name] = harness.act(death.do, death.job_type, **death.options)
    for queue, act in ACTS.items():
        for trouble in ("fail", "kill"):
            if (trouble, queue) != ("kill", "plan"):
                day.misbehaving_once[f"{trouble} {queue}"] = harness.act(
                    trouble, act, times=1, value=7
                )
    for limit, act in LIMITS.items():
        day.misbehaving_once[limit] = harness.act(
            "hang", act, times=1, value=7, policy={"max_retries": 1}
        )
    day.duplicates = [
        harness.act(value="first", idempotency_key="the same") for _ in range(DUPLICATES)
    ]
    day.unknown_task = str(uuid.uuid4())
    day.sent.append(app.send_task("nobody.has.it", args=[1], task_id=day.unknown_task))
    day.sent.append(app.send_task("exec_act", args=[{"value": "plain"}]))
    day.plain_celery = day.sent[-1].id
    _enqueue_canvas(day, app)
    for number in range(JOBS - len(DEATHS) - len(day.misbehaving_once) - OTHERS):
        queue = list(ACTS)[number % 4]
        priority = number % harness.settings.queue(queue).priorities + 1
        job = harness.act(job_type=ACTS[queue], value=number, priority=priority)
        day.plain[f"{queue} {number}"] = job, number


def _enqueue_canvas(day: Day, app: Celery) -> None:
    def act(value: Any, **payload: Any) -> Any:
        return app.signature("exec_act", args=[{"value": value, **payload}])

    def linked(first: Any) -> list[str]:
        end = chain(first, app.signature("exec_act"), app.signature("plan_act"))()
        day.sent += [end.parent.parent, end.parent, end]
        return [end.parent.parent.id, end.parent.id, end.id]

    day.chains["of three"] = linked(act({"value": {"value": 11}}))
    retrying, dying = ({"do": do, "times": 1, "value": {"value": 12}} for do in ("fail", "kill"))
    day.chains["whose middle retries"] = linked(act(retrying))
    day.chains["whose middle dies once"] = linked(act(dying))
    total = app.signature("sum_act")
    whole = chord(group(act(1), act(2), act(3, do="fail", times=1)), total)()
    day.broken_chord_part = str(uuid.uuid4())
    broken = act(4, do="fail").set(task_id=day.broken_chord_part)
    torn = chord(group(act(5), broken), total)()
    day.sent += [whole, *whole.parent, torn, *torn.parent]
    day.chord, day.broken_chord = whole.id, torn.id


def _await_evening(day: Day) -> None:
    for job in [*day.completed, *day.duplicates, *day.deaths.values()]:
        day.harness.await_end(job)
    # Celery keeps every sent result until it was asked for, and then needs the server once more.
    for result in day.sent:
        result.get(timeout=SOON_S, propagate=False)
    day.sent.clear()
    day.harness.await_quiet()
    eventually(lambda: _mirrored(day) == len(day.dead), "all letters in Postgres")
    eventually(lambda: not day.harness.events(), "all events in Postgres")


def _mirrored(day: Day) -> int:
    with day.database.connect() as connection:
        return int(connection.scalar(select(func.count()).select_from(LETTERS)) or 0)


# --- the jobs that succeed --------------------------------------------------------------------


def test_the_day_had_two_hundred_jobs(day: Day) -> None:
    assert len(day.job_ids) == JOBS


def test_every_plain_job_ran_once_and_returned_its_own_result(day: Day) -> None:
    for job, number in day.plain.values():
        assert job.result(0) == number
        assert day.harness.runs(job) == 1
        assert day.event_names(job) == ["admit", "begin", "complete"]


@pytest.mark.parametrize("trouble", [*(f"fail {queue}" for queue in ACTS), *LIMITS])
def test_a_job_that_fails_once_is_run_again_and_completes(day: Day, trouble: str) -> None:
    job = day.misbehaving_once[trouble]
    assert job.result(0) == 7
    assert day.harness.runs(job) == 2
    assert day.event_names(job) == ["admit", "begin", "retry", "begin", "complete"]


@pytest.mark.parametrize("queue", ["exec", "locator", "ops"])
def test_a_job_whose_process_is_killed_once_is_run_again_and_completes(
    day: Day, queue: str
) -> None:
    job = day.misbehaving_once[f"kill {queue}"]
    assert job.result(0) == 7
    assert day.harness.runs(job) == 2
    assert day.event_names(job) == ["admit", "begin", "lose", "begin", "complete"]


def test_five_enqueues_of_one_key_are_one_job_that_runs_once(day: Day) -> None:
    assert len({job.job_id for job in day.duplicates}) == 1
    assert [job.created for job in day.duplicates] == [True] + [False] * (DUPLICATES - 1)
    assert day.harness.runs(day.duplicates[0]) == 1


def test_a_plain_celery_producer_gets_the_same_way(day: Day) -> None:
    assert day.result(day.plain_celery).get(timeout=1) == "plain"
    assert day.event_names(day.plain_celery) == ["begin", "complete"]


# --- canvas -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "end"),
    [("of three", 11), ("whose middle retries", 12), ("whose middle dies once", 12)],
)
def test_a_chain_reaches_its_end(day: Day, name: str, end: int) -> None:
    links = day.chains[name]
    assert day.result(links[-1]).get(timeout=1) == end
    assert [day.harness.runs(link) for link in links] == [1, 2 if "middle" in name else 1, 1]


def test_a_chord_sums_its_parts_though_one_was_retried(day: Day) -> None:
    assert day.result(day.chord).get(timeout=1) == 6


def test_a_chord_with_a_dead_part_fails_at_once_and_names_the_part(day: Day) -> None:
    with pytest.raises(ChordError, match=day.broken_chord_part):
        day.result(day.broken_chord).get(timeout=1)


# --- the jobs that die ------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEATHS)
def test_the_record_tells_the_cause(day: Day, name: str) -> None:
    death, job = DEATHS[name], day.deaths[name]
    record = job.record()
    assert record.state is State.DEAD_LETTERED
    assert (record.cause["category"], record.cause["code"]) == (death.category, death.code)
    # A run that a lost connection cut off was given back, and counts as no death.
    given_back = [event for event in day.harness.events(job) if event["event"] == "release"]
    begun = [facts["attempt"] for facts in day.harness.notes.run_facts(job.job_id)]
    assert begun == list(range(1, death.runs + len(given_back) + 1))


@pytest.mark.parametrize("name", DEATHS)
def test_postgres_has_exactly_one_letter_with_the_cause_and_the_raw_body(
    day: Day, name: str
) -> None:
    death, job = DEATHS[name], day.deaths[name]
    with day.database.connect() as connection:
        (row,) = stored_letters(connection, job.job_id)
    assert str(row["id"]) == letter_id(job.job_id, job.record().epoch, 0)
    assert (row["failure_category"], row["failure_code"]) == (death.category, death.code)
    assert (row["job_type"], row["status"]) == (death.job_type, "pending")
    assert row["replay_eligible"] is death.eligible
    assert row["mirror_error"] is None
    assert b'"do": "' + death.do.encode() in bytes(row["body"])
    assert len(row["attempts"]) == max(death.runs, 1)


@pytest.mark.parametrize("name", DEATHS)
def test_a_waiting_celery_client_is_told_of_the_letter(day: Day, name: str) -> None:
    job = day.deaths[name]
    result = day.result(job.job_id)
    with pytest.raises(DeadLettered) as raised:
        result.get(timeout=1)
    assert raised.value.dead_letter_id == letter_id(job.job_id, job.record().epoch, 0)
    assert raised.value.code == DEATHS[name].code
    assert result.status == "FAILURE"


@pytest.mark.parametrize("name", DEATHS)
def test_the_handle_raises_what_the_record_tells(day: Day, name: str) -> None:
    with pytest.raises(DeadLettered, match=f"(?s){DEATHS[name].code}: .*taskyard dlq show"):
        day.deaths[name].result(0)


def test_poison_names_its_counter_and_its_evidence(day: Day) -> None:
    evidence = day.deaths["a process that dies each time"].record().cause["evidence"]
    assert (evidence["counter"], evidence["count"], evidence["limit"]) == ("deaths", 3, 3)
    assert "SIGKILL" in evidence["last_evidence"]


def test_a_handler_out_of_memory_says_what_its_process_held(day: Day) -> None:
    evidence = day.deaths["a handler out of memory"].record().cause["evidence"]
    assert 10 < evidence["process_peak_memory_mib"] < 20_000


def test_a_task_that_nobody_has_is_a_letter_and_a_failure(day: Day) -> None:
    with day.database.connect() as connection:
        (row,) = stored_letters(connection, day.unknown_task)
    assert (row["failure_category"], row["job_type"]) == ("unknown_task", "nobody.has.it")
    assert day.result(day.unknown_task).status == "FAILURE"


# --- everywhere -------------------------------------------------------------------------------


def test_nothing_is_left_in_any_queue_unacknowledged_or_delayed(day: Day) -> None:
    assert day.harness.leftovers() == {}


def test_the_stream_holds_every_version_of_every_job_and_one_end_each(day: Day) -> None:
    ends = Counter()
    for job_id in day.job_ids:
        event_names = day.event_names(job_id)
        ends[job_id] = sum(name in ("complete", "fail") for name in event_names)
        assert event_names[-1] in ("complete", "fail"), event_names
    assert set(ends.values()) == {1}


def test_ledger_and_records_agree_on_every_job(day: Day) -> None:
    for job_id in day.job_ids:
        record, row = day.harness.yard.job(job_id).record(), day.row(job_id)
        assert row["state"] == record.state
        assert (row["epoch"], row["version"]) == (record.epoch, record.number("version"))


def test_the_ledger_says_where_when_and_how_often(day: Day) -> None:
    row = day.row(day.misbehaving_once["fail exec"].job_id)
    assert (row["job_type"], row["queue"], row["attempts"]) == ("exec_act", "exec", 2)
    assert row["admitted_at"] < row["started_at"] < row["ended_at"]
    dead = day.row(day.deaths["retries that are spent"].job_id)
    assert (dead["category"], dead["code"], dead["attempts"]) == ("retry_exhausted", "flaky", 3)


def test_postgres_counts_what_the_day_enqueued(day: Day) -> None:
    with day.database.connect() as connection:
        states = dict(
            connection.execute(select(LEDGER.c.state, func.count()).group_by(LEDGER.c.state)).all()
        )
    assert states == {"completed": JOBS - len(day.dead), "dead_lettered": len(day.dead)}


def test_a_stock_celery_client_reads_results_and_deaths(day: Day) -> None:
    settings = day.harness.settings
    stock = Celery("stock", set_as_current=False, backend=settings.need_redis_url())
    stock.conf.result_backend_transport_options = {"global_keyprefix": f"{settings.namespace}:"}
    job, number = next(iter(day.plain.values()))
    assert stock.AsyncResult(job.job_id).get(timeout=1) == number
    dead = stock.AsyncResult(day.deaths["retries that are spent"].job_id)
    with pytest.raises(DeadLettered):
        dead.get(timeout=1)
    # What `close` leaves open: the connection on which the results are announced, and the others.
    stock.backend.result_consumer.stop()
    stock.backend.client.close()
    stock.close()
