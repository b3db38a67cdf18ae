"""`taskyard dlq`: letters in Postgres, with nobody but the operator at work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from servers import Servers
from support.letters import DIED_US, make_delivery, make_letter
from support.shell import Shell, connected_shell
from taskyard.clock import from_us
from taskyard.database import create_partitions
from taskyard.mirror.store_letters import store_letters
from taskyard.wire import Letter

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

PLAN = '{"feature": "Feature: a\\n  Scenario: b\\n    Given c", "base_url": "http://shop"}'
REASON = "The shop is back, ticket 4711"


@pytest.fixture
def shell(tmp_path: Path, servers: Servers, database_url: str) -> Shell:
    return connected_shell(tmp_path, servers, database_url, TASKYARD_TRUST_LOCAL="1")


def stored(database: Engine, **changes: Any) -> Letter:
    letter = make_letter(**changes)
    with database.begin() as connection:
        create_partitions(connection, from_us(DIED_US))
        store_letters(connection, [make_delivery(letter)])
    return letter


def attempt(number: int, outcome: str = "retrying") -> dict[str, Any]:
    times = {"started_us": DIED_US - 20, "ended_us": DIED_US - 10}
    extra = {"code": "timeout", "error": "timed out"}
    return {"attempt": number, "worker": "w", "outcome": outcome, **times, **extra}


def test_attempts_are_one_number_in_every_view(shell: Shell, database: Engine) -> None:
    # The second one was given back by a drain: it has a number, and counts against nothing.
    letter = stored(database, attempts=[attempt(1), attempt(3, "dead_lettered")])
    find = ("dlq", "list", "--since", "2025-01-01", "--json")

    (row,) = [row for row in shell.run(*find).document if row["id"] == letter.letter_id]
    shown = shell.run("dlq", "show", letter.letter_id, "--json").document
    text = shell.run("dlq", "show", letter.letter_id).out

    assert row["attempts"] == shown["attempts"] == 3
    assert [note["attempt"] for note in shown["failed_attempts"]] == [1, 3]
    assert "attempts       3\n" in text


def test_a_letter_of_a_job_that_never_ran_has_no_attempt(shell: Shell, database: Engine) -> None:
    letter = stored(database, category="expired", attempts=[attempt(0, "dead_lettered")])

    assert shell.run("dlq", "show", letter.letter_id, "--json").document["attempts"] == 0


@pytest.mark.parametrize(
    ("category", "eligible"),
    [
        ("retry_exhausted", "yes"),
        (
            "validation_error",
            "no: failed validation and a replay would fail again; replay it with an edit",
        ),
        ("expired", "no: expired: its sender set a deadline, which has passed. To run it"),
        ("undecodable", "no: is undecodable: no worker can read its message, so it cannot be"),
    ],
)
def test_a_letter_says_whether_it_can_be_replayed_and_why_not(
    shell: Shell, database: Engine, category: str, eligible: str
) -> None:
    letter = stored(database, category=category, replay_eligible=category == "retry_exhausted")

    text = shell.run("dlq", "show", letter.letter_id).out
    document = shell.run("dlq", "show", letter.letter_id, "--json").document

    assert f"replayable     {eligible}" in text
    assert document["replayable"] is (eligible == "yes")
    assert (document["why_not"] is None) is document["replayable"]


def test_a_replay_that_nobody_has_carried_out_is_told_as_such(
    shell: Shell, database: Engine
) -> None:
    letter = stored(database)
    words = ("dlq", "replay", letter.letter_id, "--reason", f"{REASON}, password=hunter2")
    assert shell.run(*words, "--payload", PLAN, "--queue", "exec").out.startswith("pending")

    text = shell.run("dlq", "show", letter.letter_id).out

    assert "replayable     no: was already replayed at " in text
    assert f"  reason       {REASON}, password=[redacted]\n" in text
    extra = "the relay has not answered yet and will carry it out"
    assert f"  into         generation 1 (queue exec, edited payload, {extra})\n" in text
    assert "  ended        not known yet: the new generation is not in the ledger\n" in text
    assert text.endswith(f"next  taskyard jobs show {letter.job_id}\n")


def test_a_payload_that_does_not_fit_is_refused_before_anything_is_asked(
    shell: Shell, database: Engine
) -> None:
    letter = stored(database)

    ran = shell.run("dlq", "replay", letter.letter_id, "--reason", REASON, "--payload", "{}")
    shown = shell.run("dlq", "show", letter.letter_id, "--json").document

    assert ran.code == 2
    assert "does not fit job type 'plan_generation':\n  feature: this required field" in ran.err
    assert "is missing; the payload has no fields" in ran.err
    assert (shown["status"], shown["replays"]) == ("pending", [])


def test_a_payload_that_only_its_worker_can_check_is_said_to_be(
    shell: Shell, database: Engine
) -> None:
    first, second = (stored(database, job_type="shop.pay") for _ in range(2))
    words = ("--reason", REASON, "--payload", "{}")

    ran = shell.run("dlq", "replay", first.letter_id, *words)
    (extra,) = shell.run("dlq", "replay", second.letter_id, *words, "--json").document["letters"]

    assert ran.code == 0
    assert "are not known here: arguments that do not fit will fail in the worker\n" in ran.err
    assert extra["payload_checked"] is False


TRACE = """Traceback (most recent call last):
  File "shop.py", line 3, in pay
    charge(card)
ValueError: no such card"""


def test_a_cause_of_many_lines_is_listed_by_its_meaning_and_shown_whole(
    shell: Shell, database: Engine
) -> None:
    letter = stored(database, error_message=TRACE, code="charge")

    listed = shell.run("dlq", "list", "--since", "2025-01-01").out
    shown = shell.run("dlq", "show", letter.letter_id).out

    (line,) = [line for line in listed.splitlines() if line.startswith(letter.letter_id[:8])]
    assert line.endswith("charge: ValueError: no such card")
    for part in TRACE.splitlines():
        assert part.strip() in shown


def test_the_class_of_an_exception_without_a_code_is_listed(shell: Shell, database: Engine) -> None:
    letter = stored(database, error_message="'card'", code="exception", error_class="KeyError")
    listed = shell.run("dlq", "list", "--since", "2025-01-01").out
    (line,) = [line for line in listed.splitlines() if line.startswith(letter.letter_id[:8])]
    assert line.endswith("exception: KeyError: 'card'")


def test_the_letters_of_one_job_are_listed_by_its_id(shell: Shell, database: Engine) -> None:
    letter, other = stored(database), stored(database)
    words = ("dlq", "list", "--json", "--job")  # whole, or as the table shows it
    for name in (letter.job_id, letter.job_id[:8]):
        (row,) = shell.run(*words, name).document
        assert (row["id"], row["job_id"]) == (letter.letter_id, letter.job_id)
        assert row["original_request_id"] == row["job_id"]
    assert other.job_id != letter.job_id
    assert shell.run(*words, letter.job_id[:5]).document == []
    assert shell.run(*words, "not-a-job").document == []


def test_what_a_job_wrote_into_its_letter_cannot_steer_the_terminal(
    shell: Shell, database: Engine
) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u202egnp.exe\x9b31m\rok"
    letter = stored(
        database,
        error_message=evil,
        traceback=f"Traceback:\n{evil}",
        code="x\x1bc",
        worker=evil,
        args=[{evil: evil}],
        attempts=[{**attempt(1), "error": evil, "worker": evil}],
    )
    listed = ("dlq", "list", "--since", "2025-01-01")

    runs = [
        shell.run(*words, *json)
        for words in (listed, ("dlq", "show", letter.letter_id))
        for json in ((), ("--json",))
    ]

    for ran in runs:
        assert not {"\x1b", "\x07", "\u202e", "\x9b", "\r"} & set(ran.out + ran.err)
    assert r"\x1b]0;owned\x07\x1b[2J\u202egnp.exe\x9b31m\x0dok" in runs[2].out
    assert runs[3].document["failure_reason"] == evil
