"""The yard in memory obeys its pauses and kill switches, as workers do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskyard.jobs.handler_registry import Registry
from taskyard.jobs.states import State
from taskyard.switches import SwitchField
from taskyard.testing import Yard, YardClock

START = datetime(2030, 1, 1, tzinfo=UTC)


class Shop:
    """Two handlers, and a list of what ran."""

    def __init__(self) -> None:
        self.handlers, self.ran = Registry(), list[Any]()
        self.handlers.job("work", queue="exec")(self.work)
        self.handlers.job("plan_work", queue="plan")(self.work)

    def work(self, payload: Any) -> None:
        self.ran.append(payload)


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def yard(shop: Shop) -> Iterator[Yard]:
    with Yard(handlers=shop.handlers, clock=YardClock(START)) as made:
        yield made


def hold(yard: Yard, field: str, lasts: timedelta | None = None) -> None:
    on = SwitchField.parse(field).on
    if field.startswith("pause"):
        yard.switches.pause_queue(on.removeprefix("queue:"), lasts=lasts)
    else:
        yard.switches.kill(on, hold=True, lasts=lasts)


def end(yard: Yard, field: str) -> None:
    on = SwitchField.parse(field).on
    if field.startswith("pause"):
        yard.switches.resume_queue(on.removeprefix("queue:"))
    else:
        yard.switches.lift(on)


@pytest.mark.parametrize(
    "field", ["pause queue:exec", "kill queue:exec", "kill all", "kill type:work"]
)
def test_a_held_job_waits_and_others_run(yard: Yard, shop: Shop, field: str) -> None:
    held = [yard.enqueue("work", number) for number in range(3)]
    other = yard.enqueue("plan_work", "other")
    hold(yard, field)
    yard.run()
    assert shop.ran == ([] if field == "kill all" else ["other"])
    assert [job.state() for job in held] == [State.ACCEPTED] * 3
    end(yard, field)
    yard.run()
    assert [value for value in shop.ran if value != "other"] == [0, 1, 2]
    assert {job.state() for job in (*held, other)} == {State.COMPLETED}
    assert yard.events(held[0]) == ["admit", "begin", "complete"]


@pytest.mark.parametrize("field", ["pause queue:exec", "kill type:work"])
def test_a_switch_ends_when_the_clock_reaches_its_end(yard: Yard, shop: Shop, field: str) -> None:
    yard.enqueue("work", 1)
    hold(yard, field, lasts=timedelta(seconds=60))
    yard.advance(timedelta(seconds=59))
    assert shop.ran == []
    yard.settle()
    assert (shop.ran, yard.clock.now()) == ([1], START + timedelta(seconds=60))


def test_a_refusal_lets_the_jobs_before_it_run(yard: Yard, shop: Shop) -> None:
    yard.enqueue("work", 1)
    yard.advance(timedelta(seconds=1))
    yard.switches.kill("all")
    yard.run()
    assert shop.ran == [1]


def test_a_parked_job_that_an_operator_ends_does_not_run(yard: Yard, shop: Shop) -> None:
    cancelled, aborted = yard.enqueue("work", 1), yard.enqueue("work", 2)
    hold(yard, "kill type:work")
    yard.run()
    assert yard.cancel(cancelled) is State.CANCELLED
    assert yard.abort(aborted) is State.ABORTED
    end(yard, "kill type:work")
    yard.run()
    assert shop.ran == []
