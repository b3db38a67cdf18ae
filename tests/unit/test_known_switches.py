"""What a worker believes of the switches: the newest it has read, and what `begin` has answered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from taskyard.engine.known_switches import LOST_S, KnownSwitches
from taskyard.switches import Mode, SwitchesRead, SwitchField, SwitchState

PAUSE = SwitchField.pause("exec")
NOW_US = 1_800_000_000_000_000


class SlowClock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.at_s = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(NOW_US / 1e6 + self.at_s, UTC)

    def monotonic_s(self) -> float:
        return self.at_s

    def wait_s(self, seconds: float) -> None:
        self.at_s += seconds


class Worker:
    """What one worker knows, and its reads."""

    def __init__(self, *, holds_unread: bool = True) -> None:
        self.clock = SlowClock()
        self.known = KnownSwitches(self.clock, holds_unread=holds_unread)

    def read(self, *states: tuple[SwitchField, SwitchState], began_s: float | None = None) -> None:
        at = self.clock.at_s
        read = SwitchesRead(NOW_US + int(at * 1e6), dict(states))
        self.known.note_read(read, at if began_s is None else began_s)


def on(version: int = 1, mode: Mode = Mode.HOLD, for_s: float = 0) -> SwitchState:
    until_us = NOW_US + int(for_s * 1e6) if for_s else 0
    return SwitchState(mode, version=version, since_us=NOW_US, until_us=until_us)


@pytest.mark.parametrize("holds_unread", [True, False])
def test_before_the_first_read_all_queues_are_held_or_none(holds_unread: bool) -> None:
    worker = Worker(holds_unread=holds_unread)
    assert worker.known.holds("exec") is holds_unread
    worker.read()
    assert not worker.known.holds("exec")


def test_a_version_that_no_clock_gives_is_no_newer_than_the_state_that_an_operator_turned() -> None:
    worker = Worker()
    worker.read((PAUSE, on(9 * 10**15)))
    assert worker.known.holds("exec")
    worker.read((PAUSE, on(NOW_US, Mode.OFF)))
    assert not worker.known.holds("exec")


@pytest.mark.parametrize("text", ["pause queue:exec", "kill queue:exec", "kill all"])
def test_a_switch_that_holds_the_queue_holds_it(text: str) -> None:
    worker = Worker()
    worker.read((SwitchField.parse(text), on()))
    assert worker.known.holds("exec")
    assert worker.known.is_on(text)
    assert not worker.known.holds("ops")


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("kill queue:exec", Mode.REFUSE),
        ("kill all", Mode.REFUSE),
        ("kill type:exec", Mode.HOLD),
        ("kill domain:exec", Mode.HOLD),
        ("pause queue:exec", Mode.OFF),
    ],
)
def test_a_queue_is_read_for_the_jobs_that_a_switch_lets_run(text: str, mode: Mode) -> None:
    worker = Worker()
    worker.read((SwitchField.parse(text), on(mode=mode)))
    assert not worker.known.holds("exec")


def test_a_switch_ends_by_the_servers_clock_between_two_reads() -> None:
    worker = Worker()
    worker.read((PAUSE, on(for_s=3)))
    worker.clock.at_s = 2.9
    assert worker.known.holds("exec")
    worker.clock.at_s = 3.0
    assert not worker.known.holds("exec")
    assert not worker.known.is_on(str(PAUSE))


def test_an_answer_of_begin_holds_until_a_read_that_began_later() -> None:
    worker = Worker()
    worker.read()
    worker.clock.at_s = 5.0
    worker.known.note_answer("exec")
    assert worker.known.answered.is_set()
    worker.clock.at_s = 6.0
    worker.read(began_s=4.9)
    assert worker.known.holds("exec"), "that read was on its way before the answer"
    worker.read(began_s=5.5)
    assert not worker.known.holds("exec")


@pytest.mark.parametrize(
    "lost", [[], [(PAUSE, on(version=4, mode=Mode.OFF))]], ids=["missing", "older"]
)
def test_a_switch_that_redis_has_lost_holds_until_it_is_surely_gone(
    lost: list[tuple[SwitchField, SwitchState]],
) -> None:
    worker = Worker()
    worker.read((PAUSE, on(version=5)))
    worker.clock.at_s = 1.0
    worker.read(*lost)
    worker.clock.at_s = 1.0 + LOST_S
    worker.read(*lost)
    assert worker.known.holds("exec")
    worker.clock.at_s += 0.1
    worker.read(*lost)
    assert not worker.known.holds("exec")


def test_a_lost_switch_that_is_written_again_counts_anew() -> None:
    worker = Worker()
    worker.read((PAUSE, on(version=5)))
    worker.read()
    worker.clock.at_s = LOST_S
    worker.read((PAUSE, on(version=5)))
    worker.clock.at_s = LOST_S + timedelta(seconds=1).total_seconds()
    worker.read()
    assert worker.known.holds("exec")


def test_a_text_that_is_no_switch_is_not_on() -> None:
    worker = Worker()
    worker.read()
    assert not worker.known.is_on("kill nothing:at all")
