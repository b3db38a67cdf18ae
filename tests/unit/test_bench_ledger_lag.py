"""The ledger's lag, from samples of stream and backlog."""

import pytest
from bench.ledger_lag import Sample, greatest, slope


def _samples(events: list[int]) -> list[Sample]:
    return [Sample(at, 100 - at, count, count / 1000) for at, count in enumerate(events)]


def test_the_greatest_lag_is_found_wherever_it_was() -> None:
    assert greatest(_samples([0, 700, 30])) == (700, 0.7)


def test_a_lag_that_stays_level_does_not_grow() -> None:
    assert slope(_samples([0, 900, 500, 500, 500, 500])) == 0


def test_growth_is_events_a_second_in_the_second_half() -> None:
    assert slope(_samples([9999, 0, 0, 0, 100, 200, 300, 400])) == pytest.approx(100)


def test_a_single_look_shows_no_growth() -> None:
    assert slope(_samples([5])) == 0
