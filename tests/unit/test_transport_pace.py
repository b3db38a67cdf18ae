"""When a consumer may hold more than it runs."""

from __future__ import annotations

from taskyard.transport.ack_rate import QUICK_S, AckRate


def acknowledged(pace: AckRate, count: int, interval_s: float, start: float = 0.0) -> float:
    """The moment of the last of `count` acknowledgements."""
    now = start
    for _ in range(count):
        now += interval_s
        pace.note(now)
    return now


def test_a_consumer_starts_slow() -> None:
    assert not AckRate().quick(8, 0.0)


def test_a_few_dozen_quick_jobs_show_that_jobs_are_quick() -> None:
    pace = AckRate()
    now = acknowledged(pace, 40, 0.001)
    assert pace.quick(8, now)


def test_jobs_that_take_longer_than_they_may_are_not_quick() -> None:
    pace = AckRate()
    now = acknowledged(pace, 200, QUICK_S / 4)
    assert pace.quick(3, now)
    assert not pace.quick(5, now)


def test_one_job_that_does_not_end_makes_quick_jobs_slow() -> None:
    pace = AckRate()
    now = acknowledged(pace, 40, 0.001)
    assert not pace.quick(8, now + QUICK_S)


def test_a_pause_makes_slow_until_jobs_show_their_pace_again() -> None:
    pace = AckRate()
    now = acknowledged(pace, 40, 0.001)
    pace.note(now + 3600.0)
    assert not pace.quick(8, now + 3600.0)
    later = acknowledged(pace, 40, 0.001, start=now + 3600.0)
    assert pace.quick(8, later)
