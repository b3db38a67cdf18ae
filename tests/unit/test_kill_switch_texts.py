"""What a caller reads whose jobs a kill switch refuses, and how the handlers' retries see it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from taskyard.errors import KillSwitchOn, NotReplicated
from taskyard.runner.exception_facts import describe_failure

SINCE = datetime(2030, 1, 2, 3, 4, 5, 678, UTC)
UNTIL = datetime(2030, 1, 2, 4, 0, tzinfo=UTC)
REASON = "the payment service doubles its bookings"


def on(
    field: str = "kill queue:exec", until: datetime | None = UNTIL, after: int = 90
) -> KillSwitchOn:
    return KillSwitchOn(field, reason=REASON, since=SINCE, until=until, retry_after=after)


def test_the_text_says_which_switch_since_when_why_and_what_to_do() -> None:
    assert str(on()) == (
        "the job is not enqueued: the kill switch on queue:exec is on since 2030-01-02 03:04:05 "
        "UTC, until 2030-01-02 04:00:00 UTC; reason: the payment service doubles its bookings. "
        "Enqueue it again in 90 s"
    )
    assert str(on("kill all", until=None, after=30)) == (
        "the job is not enqueued: the kill switch on all is on since 2030-01-02 03:04:05 UTC, "
        "without an end; reason: the payment service doubles its bookings. Enqueue it again in 30 "
        "s; it is refused until an operator lifts the switch"
    )


@pytest.mark.parametrize(
    ("refused", "others", "begins"),
    [
        ([0], 0, "the job is not enqueued: "),
        ([1], 1, "request 2 of the call is not enqueued, the other is: "),
        ([0], 2, "request 1 of the call is not enqueued, the other 2 are: "),
        ([0, 1, 2], 0, "requests 1 to 3 of the call are not enqueued: "),
        ([0, 1, 5], 3, "requests 1 to 2 and 6 of the call are not enqueued, the other 3 are: "),
        (
            range(0, 40, 2),
            20,
            "requests 1, 3, 5, 7, 9, 11, 13, 15, 17, 19 and 10 more of the call are not enqueued, ",
        ),
    ],
)
def test_the_text_of_a_call_for_many_counts_from_one(
    refused: list[int], others: int, begins: str
) -> None:
    error = KillSwitchOn.of_call(dict.fromkeys(refused, on()), [f"j{n}" for n in range(others)])
    assert str(error).startswith(begins)
    assert error.requests == tuple(refused)


def test_a_call_that_several_switches_refuse_names_the_one_that_lasts_longest() -> None:
    refused = {3: on("kill type:a", after=10), 1: on("kill type:b", after=20), 5: on("kill type:c")}
    error = KillSwitchOn.of_call(refused, [])
    assert (error.field, error.retry_after, error.requests) == ("kill type:c", 90, (1, 3, 5))
    assert error.others == ("kill type:a", "kill type:b")
    assert str(error).endswith("On are also: kill type:a, kill type:b. Enqueue them again in 90 s")


def test_a_handler_that_lets_it_through_is_retried_when_the_switch_ends() -> None:
    failure = describe_failure("bill", on())
    assert (failure.code, failure.retry_after_s) == ("kill_switch", 90)


def test_what_no_replica_has_and_what_was_refused_is_named_apart() -> None:
    of_script = NotReplicated(
        ["a", "b"], unkeyed=[], confirmed=0, wanted=1, within_s=1, requests=[0, 2, 1]
    )
    assert of_script.not_enqueued == (1,)
    error = of_script.within([10, 12, 3, 11, 13])
    assert (error.requests, error.not_enqueued) == ((10, 12, 3, 11, 13), (3, 11, 13))
    assert str(error).endswith(
        "The requests 1 to 3 and 5 to 10 of the call are confirmed; the requests 4, 12 and 14 are "
        "not enqueued, enqueue them"
    )
