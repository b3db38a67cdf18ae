"""One rule for an ETA, in every consumer: the one that Celery's worker has."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from taskyard.clock import to_us
from taskyard.engine.eta_parsing import due_ahead_us

NOW = datetime(2031, 5, 1, 12, tzinfo=UTC)
NINE_S = to_us(NOW) + 9_000_000


class Message:
    def __init__(self, eta: object) -> None:
        self.headers = {"eta": eta}


def due(eta: object) -> int | None:
    return due_ahead_us(Message(eta), to_us(NOW))


@pytest.mark.parametrize(
    "eta", ["2031-05-01T12:00:09+00:00", "2031-05-01T14:00:09+02:00", "2031-05-01T12:00:09Z"]
)
def test_a_date_ahead_is_told_in_utc(eta: str) -> None:
    assert due(eta) == NINE_S


def test_a_date_without_a_zone_is_in_utc_as_celery_reads_it() -> None:
    assert due("2031-05-01T12:00:09") == NINE_S


def test_a_date_of_a_second_or_less_stays_in_the_worker() -> None:
    assert due("2031-05-01T12:00:01+00:00") is None
    assert due("2031-05-01T12:00:01.001+00:00") == to_us(NOW) + 1_001_000
    assert due("2001-05-01T12:00:00") is None


@pytest.mark.parametrize("eta", [None, 7, "soon", "", "2031-13-01T00:00:00"])
def test_a_date_that_cannot_be_read_is_left_to_celery(eta: object) -> None:
    assert due(eta) is None


def test_a_message_without_headers_has_no_date() -> None:
    message = Message(None)
    message.headers = None  # type: ignore[assignment]
    assert due_ahead_us(message, to_us(NOW)) is None
