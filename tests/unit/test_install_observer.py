"""What an observer writes of attempts that overlap: Celery publishes a retry before it ends."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from support.waiting import eventually
from taskyard.install.observed_events import Ended, Requeued, Started, Watched
from taskyard.install.observer import Observer
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.settings import Settings
from taskyard.testing.clock import YardClock
from taskyard.testing.records import MemoryRecords
from taskyard.wire.failure_backoff import FailureBackoff

JOB = "job-1"
RETRY = {"delay_s": 0.0, "code": "retry", "message": "again"}
DEATH = {"cause": b"{}", "code": "broken", "category": "retry_exhausted", "message": "broken"}


class Desk:
    """An observer over records in memory, and the events that it has written."""

    def __init__(self) -> None:
        clock = YardClock(datetime.now(UTC))
        records = self.records = MemoryRecords(clock, Settings(redis_url="redis://nowhere:1/0"))
        self.letters: list[Any] = []
        box = SimpleNamespace(post=self.letters.append)
        yard: Any = SimpleNamespace(
            records=records, watching=records, watched_letters=box, backoff=FailureBackoff()
        )
        self.observer = Observer(yard)

    def event_names(self) -> list[str]:
        self.observer.close()
        return [event["event"] for event in self.records.events(JOB)]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def delivery(number: int) -> Watched:
    return Watched(JOB, f"holder-{number}", "shop.pay", "shop", "worker-1")


def retried(number: int) -> Ended:
    return Ended(delivery(number), Decision.RETRYING, dict(RETRY))


def died(number: int) -> Ended:
    return Ended(delivery(number), Decision.DEAD_LETTERED, dict(DEATH))


STORY = ["begin", "retry", "begin", "retry", "begin", "fail"]


@pytest.mark.parametrize(
    "seen",
    [
        (
            Started(delivery(1)),
            retried(1),
            Started(delivery(2)),
            retried(2),
            Started(delivery(3)),
            died(3),
        ),
        (
            Started(delivery(1)),
            Started(delivery(2)),
            retried(1),
            Started(delivery(3)),
            retried(2),
            died(3),
        ),
        (
            Started(delivery(1)),
            Started(delivery(2)),
            retried(1),
            Started(delivery(3)),
            died(3),
            retried(2),
        ),
        (
            Started(delivery(1)),
            Started(delivery(2)),
            Started(delivery(3)),
            died(3),
            retried(2),
            retried(1),
        ),
    ],
    ids=["one by one", "overlapping", "the last overtakes", "all backwards"],
)
def test_every_attempt_is_in_the_story_once(desk: Desk, seen: tuple[Any, ...]) -> None:
    for one in seen:
        desk.observer.observe(one)
    assert desk.event_names() == STORY


def test_an_end_waits_for_an_earlier_one_only_so_long(desk: Desk) -> None:
    desk.observer.observe(Started(delivery(1)))
    desk.observer.observe(Started(delivery(2)))
    desk.observer.observe(died(2))
    eventually(lambda: len(desk.records.events(JOB)) == 2, "the end is written")
    assert desk.event_names() == ["begin", "fail"]


def test_a_delivery_that_is_gone_is_waited_for_no_longer(desk: Desk) -> None:
    desk.observer.observe(Started(delivery(1)))
    desk.observer.observe(Started(delivery(2)))
    desk.observer.observe(died(2))
    desk.observer.observe(Requeued(delivery(1)))
    assert desk.event_names()[-1] == "fail"
