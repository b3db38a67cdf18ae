"""The letter of a job that an operator has ended is closed, in whatever order both are stored."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, update

from support.entries import make_entry
from support.letters import make_delivery, make_letter
from support.mirror import stored_letters
from taskyard.database.tables import LETTERS
from taskyard.mirror.store_letters import store_letters
from taskyard.mirror.store_lifecycle import store_events
from taskyard.wire import Letter

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

ENDED = [
    ("force_complete", "completed", "completed"),
    ("cancel", "cancelled", "cancelled"),
    ("abort", "aborted", "cancelled"),
]


@pytest.fixture
def transaction(database: Engine) -> Iterator[Connection]:
    """A transaction that is rolled back."""
    with database.connect() as connection:
        yield connection


def bring_letter(connection: Connection, letter: Letter) -> None:
    store_letters(connection, [make_delivery(letter)])


def bring_event(connection: Connection, letter: Letter, event: str, state: str) -> None:
    fields = {"epoch": letter.epoch, "generation": letter.generation, "version": 9}
    store_events(connection, [make_entry(letter.job_id, event=event, state=state, **fields)])


def status(connection: Connection, letter: Letter) -> str:
    rows = stored_letters(connection, letter.job_id)
    return {str(row["id"]): str(row["status"]) for row in rows}[letter.letter_id]


@pytest.mark.parametrize(("event", "state", "closed"), ENDED)
def test_a_letter_that_comes_after_its_jobs_end_is_closed(
    transaction: Connection, event: str, state: str, closed: str
) -> None:
    letter = make_letter()
    bring_event(transaction, letter, event, state)
    bring_letter(transaction, letter)
    assert status(transaction, letter) == closed


@pytest.mark.parametrize(("event", "state", "closed"), ENDED)
def test_a_letter_whose_job_an_operator_ends_is_closed_by_the_event(
    transaction: Connection, event: str, state: str, closed: str
) -> None:
    letter = make_letter()
    bring_letter(transaction, letter)
    assert status(transaction, letter) == "pending"
    bring_event(transaction, letter, event, state)
    assert status(transaction, letter) == closed


def test_letters_of_other_generations_and_those_that_are_not_open_stay_as_they_are(
    transaction: Connection,
) -> None:
    job = str(uuid.uuid4())
    first, second = (make_letter(job, generation=number) for number in (0, 1))
    bring_letter(transaction, first)
    transaction.execute(
        update(LETTERS).where(LETTERS.c.id == uuid.UUID(first.letter_id)).values(status="replayed")
    )
    bring_letter(transaction, second)
    bring_event(transaction, second, "abort", "aborted")
    assert [status(transaction, letter) for letter in (first, second)] == ["replayed", "cancelled"]


def test_a_letter_of_a_job_that_lives_stays_open(transaction: Connection) -> None:
    letter = make_letter()
    bring_event(transaction, letter, "fail", "dead_lettered")
    bring_letter(transaction, letter)
    assert status(transaction, letter) == "pending"
