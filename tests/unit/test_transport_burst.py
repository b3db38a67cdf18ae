"""How many messages a consumer holds, and when it acknowledges, while jobs are quick or slow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from taskyard.transport import qos
from taskyard.transport.ack_rate import QUICK_S
from taskyard.transport.qos import QoS
from taskyard.wire.failure_backoff import FailureBackoff

PREFETCH, BURST = 2, 4


class Channel:
    """What a QoS asks of its channel."""

    unacked_key, unacked_index_key, unacked_mutex_key = "unacked", "index", "mutex"
    unacked_mutex_expire, visibility_timeout, unacked_restore_limit = 300, 3600, None
    in_loop, burst, active_queues, do_restore = True, BURST, {"q"}, False
    closed = False

    def __init__(self) -> None:
        self.acknowledged: list[list[str]] = []
        self.server = SimpleNamespace(
            backoff=FailureBackoff(), acknowledge=self.acknowledged.append
        )
        self.ticks: list[float] = []
        self.connection = SimpleNamespace(tick_within=self.ticks.append)


class Desk:
    """A consumer whose clock the test moves."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        patch.setattr(qos, "monotonic", lambda: self.now)
        self.channel = Channel()
        self.qos: Any = QoS(self.channel, PREFETCH)
        self._tags = 0

    def take(self, count: int) -> None:
        for _ in range(count):
            self._tags += 1
            self.qos.append(SimpleNamespace(delivery_info={}), str(self._tags))

    def finish(self, count: int, each_s: float) -> None:
        for _ in range(count):
            self.now += each_s
            self.qos.ack(next(tag for tag in self.qos._delivered if tag not in self.qos._dirty))

    def warm_up(self) -> None:
        """Sixty jobs of a millisecond."""
        for _ in range(60):
            self.take(1)
            self.finish(1, 0.001)
        self.qos.flush()
        self.channel.acknowledged.clear()
        self.channel.ticks.clear()

    @property
    def room(self) -> int:
        return int(self.qos.can_consume_max_estimate())


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


def test_at_first_it_is_the_prefetch_count(desk: Desk) -> None:
    assert desk.room == PREFETCH
    desk.take(1)
    assert desk.room == PREFETCH - 1
    desk.take(1)
    assert not desk.qos.can_consume()


def test_with_quick_jobs_it_is_four_times_as_many_and_a_pop_waits_for_half_of_them(
    desk: Desk,
) -> None:
    desk.warm_up()
    assert desk.room == PREFETCH * BURST
    desk.take(8)
    desk.finish(3, 0.001)
    assert not desk.qos.can_consume()
    desk.finish(1, 0.001)
    assert desk.room == 4


def test_a_job_that_does_not_end_takes_nothing_more_than_the_prefetch_count(desk: Desk) -> None:
    desk.warm_up()
    desk.now += QUICK_S
    assert desk.room == PREFETCH


def test_what_is_held_beyond_the_prefetch_count_is_too_much_once_nothing_ends(desk: Desk) -> None:
    desk.warm_up()
    desk.take(8)
    desk.finish(1, 0.001)
    assert desk.qos.over_prefetch() == 0
    desk.now += 1.0
    assert desk.qos.over_prefetch() == 7 - PREFETCH


def test_slow_jobs_are_acknowledged_at_the_next_tick(desk: Desk) -> None:
    desk.take(2)
    desk.finish(1, 60.0)
    desk.qos.flush_left()
    assert desk.channel.acknowledged == [["1"]]
    assert desk.channel.ticks == []


def test_quick_jobs_wait_a_moment_for_each_other_and_wake_the_loop_in_time(desk: Desk) -> None:
    desk.warm_up()
    desk.take(8)
    desk.finish(2, 0.001)
    desk.qos.flush_left()
    assert desk.channel.acknowledged == []
    (within_s,) = desk.channel.ticks
    desk.now += within_s
    desk.qos.flush_left()
    assert [len(tags) for tags in desk.channel.acknowledged] == [2]


def test_the_last_one_held_is_acknowledged_at_once(desk: Desk) -> None:
    desk.warm_up()
    desk.take(1)
    desk.finish(1, 0.001)
    desk.qos.flush_left()
    assert [len(tags) for tags in desk.channel.acknowledged] == [1]
