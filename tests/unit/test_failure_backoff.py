"""What fails for longer than a moment: waits that grow, one line a cause, one when it is over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.wire.failure_backoff import LONGEST_WAIT_S, FailureBackoff

JOBS = ("0b9e3a52-6f6a-4a7c-9f0e-0123456789ab", "1c9e3a52-6f6a-4a7c-9f0e-0123456789ab")


class Trying:
    """A process whose clock the test moves and whose waits have no jitter."""

    def __init__(self) -> None:
        self.now = 100.0
        self.backoff = FailureBackoff(clock=lambda: self.now, jitter=lambda: 0.0)

    def fail(self, text: str = "NOPERM", item: str = "", what: str = "not written") -> float:
        return self.backoff.failed(what, RuntimeError(text), action="test", item=item)

    def fail_in_a_row(self, times: int, item: str = "") -> list[float]:
        waits = []
        for _ in range(times):
            waits.append(self.fail(item=item))
            self.now += waits[-1]
        return waits


@pytest.fixture
def trying() -> Trying:
    return Trying()


def test_waits_double_up_to_the_longest(trying: Trying) -> None:
    assert trying.fail_in_a_row(7) == [1, 2, 4, 8, 16, LONGEST_WAIT_S, LONGEST_WAIT_S]


def test_many_failures_of_one_moment_are_one_step(trying: Trying) -> None:
    assert [trying.fail(item=str(number)) for number in range(20)] == [1.0] * 20
    trying.now += 1
    assert trying.fail(item="another") == 2.0


def test_where_others_work_only_the_item_that_fails_waits_longer(trying: Trying) -> None:
    assert trying.fail_in_a_row(3, item="bad") == [1, 2, 4]
    trying.backoff.succeeded("not written", item="good")
    assert trying.fail(item="new") == 1.0
    assert trying.fail(item="bad") == 8.0


def test_a_cause_is_logged_once_and_its_end_once(
    trying: Trying, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for job in JOBS:
        for number in range(50):
            trying.fail(f"NOPERM for job {job}, try {number}", item=job)
            trying.now += 1
        assert len(caplog.records) == 1
    trying.fail("OOM", item="x")
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    for item in (*JOBS, "x"):
        trying.backoff.succeeded("not written", item)
    assert [record.getMessage() for record in caplog.records][2:] == [
        "not written: this works again, after 101 failures in 100 s"
    ]


def test_what_one_item_fails_at_is_over_only_when_it_works_or_was_not_tried_for_long(
    trying: Trying, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    trying.fail(item="bad")
    trying.backoff.succeeded("not written", item="good")
    assert "this works again" not in caplog.text
    trying.now += 1000
    trying.backoff.succeeded("not written", item="good")
    assert "this works again" in caplog.text


def test_what_waits_is_left_alone_until_its_time(trying: Trying) -> None:
    assert trying.backoff.waits_s("not written") == 0.0
    trying.fail()
    assert trying.backoff.waits_s("not written") == 1.0
    trying.now += 1
    assert trying.backoff.waits_s("not written") == 0.0


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=40))
def test_no_wait_is_longer_than_is_said_and_none_is_short(jitters: list[float]) -> None:
    given_jitters = iter(jitters)
    now = 0.0
    backoff = FailureBackoff(clock=lambda: now, jitter=lambda: next(given_jitters))
    for _ in jitters:
        wait_s = backoff.failed("x", "y", action="test")
        assert 0.5 <= wait_s <= LONGEST_WAIT_S
        now += wait_s
