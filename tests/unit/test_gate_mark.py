"""When the marks of Redis and Postgres agree."""

import uuid

import pytest

from taskyard.gate import Mark, disagreement

TOKEN = uuid.UUID(int=1)


def mark(beat: int, token: uuid.UUID = TOKEN) -> Mark:
    return Mark(token, beat)


@pytest.mark.parametrize("postgres", [mark(7), mark(8), mark(9)])
def test_one_beat_of_difference_is_a_writer_that_died_between_the_two(postgres: Mark) -> None:
    assert disagreement(postgres, mark(8)) is None


@pytest.mark.parametrize(
    ("postgres", "redis", "why"),
    [
        (mark(3), mark(8), "Postgres is at least 20 s of relay time behind Redis"),
        (mark(8), mark(3), "Redis is at least 20 s of relay time behind Postgres"),
        (mark(8), None, "Redis was flushed, replaced or restored"),
        (None, mark(8), "Postgres has no mark: it was replaced, or restored to a time before"),
        (
            mark(8),
            mark(8, uuid.UUID(int=2)),
            "belong to different restores or installations",
        ),
    ],
)
def test_a_restored_store_is_noticed(postgres: Mark | None, redis: Mark | None, why: str) -> None:
    assert why in (disagreement(postgres, redis) or "")


def test_a_first_start_is_open_even_if_it_ended_between_the_two_stores() -> None:
    assert disagreement(None, None) is None
    assert disagreement(None, mark(1)) is None


def test_a_mark_comes_back_as_it_was_written() -> None:
    assert Mark.parse(mark(8).encode().encode()) == mark(8)
