"""What `taskyard jobs` tells from the ledger: causes in the list, a job without its record."""

from __future__ import annotations

import uuid

import pytest
from sqlalchemy import Engine

from support.letters import DIED_US
from support.shell import Shell
from taskyard import ledger
from taskyard.access import Identity, Role
from taskyard.clock import from_us
from taskyard.jobs import Event, State
from taskyard.wire import letter_id

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

LIST = ("jobs", "list", "--since", "2025-01-01", "--limit", "1000")
NOWHERE = "redis://:hunter2@127.0.0.1:1/0"
TRACE = """Traceback (most recent call last):
  File "shop.py", line 3, in pay
ValueError: no such card, password=hunter2"""


def job_with(database: Engine, *steps: tuple[Event, State, dict[str, str | int]]) -> str:
    """A job with these steps in the ledger, and its id; `after_s`: when in it something happens."""
    job = str(uuid.uuid4())
    place: dict[str, str | int] = {"type": "plan_generation", "queue": "plan", "generation": 0}
    with database.begin() as connection:
        ledger.write(
            connection,
            [
                ledger.Entry(
                    job,
                    DIED_US,
                    at + 1,
                    event,
                    state,
                    from_us(DIED_US + at + int(more.get("after_s", 0)) * 1_000_000),
                    {k: v for k, v in (place | more).items() if k != "after_s"},
                )
                for at, (event, state, more) in enumerate(steps)
            ],
        )
    return job


def died(database: Engine, error: str = TRACE) -> str:
    cause: dict[str, str | int] = {"attempt": 1, "code": "charge", "error": error}
    return job_with(
        database,
        (Event.ADMIT, State.ACCEPTED, {}),
        (Event.BEGIN, State.RUNNING, {"attempt": 1}),
        (Event.FAIL, State.DEAD_LETTERED, cause),
    )


def line_of(out: str, job: str) -> str:
    (line,) = [line for line in out.splitlines() if line.startswith(job[:8])]
    return line


def test_the_list_tells_a_cause_by_code_and_words(shell: Shell, database: Engine) -> None:
    job = died(database)

    out = shell.run(*LIST).out
    (row,) = [row for row in shell.run(*LIST, "--json").document if row["job_id"] == job]

    assert line_of(out, job).endswith("charge: ValueError: no such card, password=[redacted]")
    assert row["code"] == "charge"
    assert row["error"] == TRACE.replace("hunter2", "[redacted]")


def test_a_list_without_a_match_sends_to_the_whole_list(shell: Shell) -> None:
    ran = shell.run("jobs", "list", "--type", "nothing_like_it", "--state", "dead_lettered")

    assert ran.code == 0
    assert "no job matches. To see the newest jobs of all kinds: taskyard jobs list" in ran.err


def test_the_words_are_those_of_the_last_failure(shell: Shell, database: Engine) -> None:
    failed: dict[str, str | int] = {"attempt": 1, "code": "timeout", "error": "the first"}
    again: dict[str, str | int] = {"attempt": 2, "code": "timeout", "error": "the second"}
    job = job_with(
        database,
        (Event.ADMIT, State.ACCEPTED, {}),
        (Event.BEGIN, State.RUNNING, {"attempt": 1}),
        (Event.RETRY, State.RETRYING, failed),
        (Event.BEGIN, State.RUNNING, {"attempt": 2}),
        (Event.RETRY, State.RETRYING, again),
    )

    assert line_of(shell.run(*LIST).out, job).endswith("timeout: the second")


def test_a_failure_that_is_not_why_the_job_is_where_it_is_is_no_cause(
    shell: Shell, database: Engine
) -> None:
    failed: dict[str, str | int] = {"attempt": 1, "code": "timeout", "error": "overcome"}
    job = job_with(
        database,
        (Event.BEGIN, State.RUNNING, {"attempt": 1}),
        (Event.RETRY, State.RETRYING, failed),
        (Event.BEGIN, State.RUNNING, {"attempt": 2}),
        (Event.COMPLETE, State.COMPLETED, {"attempt": 2}),
    )

    (row,) = [row for row in shell.run(*LIST, "--json").document if row["job_id"] == job]

    assert (row["code"], row["error"]) == (None, None)
    assert "overcome" not in line_of(shell.run(*LIST).out, job)


def test_what_a_replayed_job_took_leaves_out_how_long_it_lay_dead(
    shell: Shell, database: Engine
) -> None:
    job = job_with(
        database,
        (Event.ADMIT, State.ACCEPTED, {}),
        (Event.BEGIN, State.RUNNING, {"attempt": 1}),
        (Event.FAIL, State.DEAD_LETTERED, {"attempt": 1}),
        (Event.REPLAY, State.ACCEPTED, {"generation": 1, "after_s": 86_400}),
        (Event.BEGIN, State.RUNNING, {"generation": 1, "attempt": 1, "after_s": 90_000}),
        (Event.COMPLETE, State.COMPLETED, {"generation": 1, "attempt": 1, "after_s": 90_007}),
    )

    assert " 7.0 s " in line_of(shell.run(*LIST).out, job)


def test_without_the_records_a_job_is_shown_as_the_ledger_has_it(
    shell: Shell, database: Engine
) -> None:
    job = died(database, "timed out")
    letter = letter_id(job, DIED_US, 0)

    ran = shell.run("jobs", "show", job[:13], TASKYARD_REDIS_URL=NOWHERE)
    document = shell.run("jobs", "show", job, "--json", TASKYARD_REDIS_URL=NOWHERE).document

    assert ran.code == 0
    assert f"job       {job}\n" in ran.out
    assert "state     dead_lettered  (from the ledger, which may be behind)\n" in ran.out
    assert (
        "record    unknown (Redis at redis://:[redacted]@127.0.0.1:1/0 does not answer" in ran.out
    )
    assert "attempts  1\n" in ran.out
    assert "cause     charge\n" in ran.out
    assert f"letter    {letter}\n" in ran.out
    assert f"next      taskyard dlq show {letter}\n" in ran.out
    assert "charge: timed out" in ran.out
    assert "expired" not in ran.out
    assert (document["state"], document["record"]) == ("dead_lettered", "unknown")
    assert document["record_unknown"].startswith("Redis at redis://")
    assert [event["event"] for event in document["history"]] == ["admit", "begin", "fail"]


def test_without_the_records_a_job_that_waits_is_told_without_guesses(
    shell: Shell, database: Engine
) -> None:
    job = job_with(database, (Event.ADMIT, State.ACCEPTED, {}))
    away = {"TASKYARD_REDIS_URL": NOWHERE, "TASKYARD_BROKER_URL": NOWHERE}

    ran = shell.run("jobs", "show", job, **away)

    assert ran.code == 0
    assert "state     accepted  (from the ledger, which may be behind)\n" in ran.out
    assert "workers   unknown (Redis at " in ran.out


@pytest.mark.parametrize("database_url_of", ["this", "nowhere"])
def test_where_nobody_knows_a_job_the_records_outage_is_the_answer(
    shell: Shell, database: Engine, database_url_of: str
) -> None:
    away = {"TASKYARD_REDIS_URL": NOWHERE}
    if database_url_of == "nowhere":
        away["TASKYARD_DATABASE_URL"] = "postgresql://127.0.0.1:1/nothing"

    ran = shell.run("jobs", "show", "0123456789", **away)

    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("error: Redis at redis://:[redacted]@127.0.0.1:1/0")
    assert "there is no job" not in ran.err


def test_waiting_for_a_job_needs_the_records_all_the_same(shell: Shell, database: Engine) -> None:
    ran = shell.run("jobs", "wait", died(database), TASKYARD_REDIS_URL=NOWHERE)

    assert ran.code == 3
    assert ran.err.startswith("error: Redis at ")


def test_the_list_is_narrowed_to_a_domain_and_to_what_an_identity_sees(
    shell: Shell, database: Engine
) -> None:
    domain = f"d{uuid.uuid4().hex[:8]}"
    own = job_with(database, (Event.ADMIT, State.ACCEPTED, {"domain": domain}))
    elsewhere = job_with(
        database, (Event.ADMIT, State.ACCEPTED, {"domain": domain, "queue": "exec"})
    )
    other = job_with(database, (Event.ADMIT, State.ACCEPTED, {}))

    listed = {row["job_id"] for row in shell.run(*LIST, "--domain", domain, "--json").document}
    shown = shell.run("jobs", "show", own, "--json").document

    assert listed == {own, elsewhere}
    assert shown["domain"] == domain
    bound = Identity(
        "a@example.com",
        via="test",
        role=Role.VIEWER,
        queues=frozenset({"plan"}),
        domains=frozenset({domain}),
    )
    with database.connect() as connection:
        rows = ledger.newest(connection, ledger.Wanted(), 1000, identity=bound)
    assert [row["job_id"] for row in rows] == [own]
    assert other not in listed
