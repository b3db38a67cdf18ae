"""A switch is turned without Postgres as Python says: the script and the model agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.clock import us_of
from taskyard.settings import Settings
from taskyard.switches import (
    Form,
    Mode,
    RedisSwitches,
    SwitchField,
    SwitchState,
    next_version,
)
from taskyard.switches.redis_switches import UNREADABLE
from taskyard.testing import YardClock
from taskyard.testing.records import MemoryRecords

ALL = SwitchField.kill("all")
STREAM = "taskyard:lifecycle"
BY = {"operator": "ada", "via": "key:1", "reason": 'down {"x"} 1 2', "request_id": "7"}
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["turn", "put", "flush", "junk"]),
        st.sampled_from(Mode),
        st.integers(min_value=0, max_value=3),  # it lasts so many seconds, 0 for no end
        st.integers(min_value=0, max_value=3),  # seconds that pass before
    ),
    max_size=12,
)


class Model:
    """What the store must hold, by `next_version` and `SwitchState.since`."""

    def __init__(self) -> None:
        self.state: SwitchState | None = None

    def turn(self, mode: Mode, lasts_s: int, now_us: int) -> tuple[str, SwitchState | None]:
        former = self.state
        if mode is Mode.OFF and (former is None or former.mode is Mode.OFF):
            return "off", former
        version = next_version(0 if former is None else former.version, now_us, odd=True)
        until_us = now_us + us_of(lasts_s) if lasts_s else 0
        state = SwitchState(mode, version=version, since_us=0, until_us=until_us, **BY)
        self.state = state.since(former, now_us)
        return "turned", self.state


class Store:
    """Switches in memory, in the time of a clock that the test moves."""

    def __init__(self) -> None:
        self.clock = YardClock()
        self.records = MemoryRecords(self.clock, Settings())
        prelude = self.records.storage.prelude
        self.switches = RedisSwitches(self.records.client, "taskyard", prelude=prelude)

    def turn(
        self, mode: Mode, lasts_s: int = 0, form: Form | None = None
    ) -> tuple[str, SwitchState | None]:
        wanted = SwitchState(mode, version=0, since_us=0, until_us=0, **BY)
        return self.switches.turn(
            ALL,
            wanted,
            lasts_us=us_of(lasts_s),
            stream=STREAM,
            event={"verb": "v", "credential": ""},
            form=form,
        )

    def events(self) -> list[dict[bytes, bytes]]:
        raw: Any = self.records.client.xrange(STREAM)
        return [fields for _, fields in raw]


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    yield made
    made.records.client.close()


@given(STEPS)
def test_the_script_turns_a_switch_as_the_model_does(
    steps: list[tuple[str, Mode, int, int]],
) -> None:
    store, model = Store(), Model()
    turned = 0
    for kind, mode, lasts_s, passes_s in steps:
        store.clock.advance(timedelta(seconds=passes_s))
        now_us = store.records.now_us()
        match kind:
            case "turn":
                came, state = store.turn(mode, lasts_s)
                assert (came, state) == model.turn(mode, lasts_s, now_us)
                if came == "turned":
                    turned += 1
                    assert store.events()[-1][b"state"].decode() == state.encode()  # type: ignore[union-attr]
            case "put":
                # What Postgres has: by its own versions.
                last = 0 if model.state is None else model.state.version
                given = SwitchState(mode, version=next_version(last, now_us), since_us=now_us)
                model.state = replace(given, until_us=now_us + us_of(lasts_s) if lasts_s else 0)
                assert store.switches.put(ALL, model.state)
            case "flush":
                store.records.client.delete(store.switches.key)
                model.state = None
            case _:
                store.records.client.hset(store.switches.key, str(ALL), "stop everything")
                model.state = UNREADABLE
        read = store.switches.read()
        assert read.now_us == now_us
        assert read.believed().get(ALL) == model.state
        in_force = model.state is not None and model.state.in_force(now_us)
        assert list(read.in_force()) == ([ALL] if in_force else [])
    assert len(store.events()) == turned
    store.records.client.close()


def test_a_form_turns_once_and_what_was_refused_keeps_it(store: Store) -> None:
    form = Form("a" * 32, kept_ms=60_000)
    assert store.turn(Mode.OFF, form=form) == ("off", None)
    came, state = store.turn(Mode.HOLD, form=form)
    assert came == "turned"
    store.turn(Mode.OFF)
    assert store.turn(Mode.HOLD, form=form) == ("used", state)
    assert store.switches.read().in_force() == {}
    assert len(store.events()) == 2


def test_a_nonce_is_kept_as_long_as_its_form_is_valid(store: Store) -> None:
    form = Form("b" * 32, kept_ms=60_000)
    store.turn(Mode.HOLD, form=form)
    store.clock.advance(timedelta(seconds=59))
    assert store.turn(Mode.HOLD, form=form)[0] == "used"
    store.clock.advance(timedelta(seconds=2))
    assert store.turn(Mode.HOLD, form=form)[0] == "turned"


@pytest.mark.parametrize("since", ["now + 1", "9" * 40])
def test_since_a_time_to_come_no_switch_goes_on(store: Store, since: str) -> None:
    """The mirror would refuse the event, and the switch would be in Redis alone."""
    now_us = store.records.now_us()
    value = f"hold 0 {since.replace('now + 1', str(now_us + 1))} {now_us} {{}}"
    store.records.client.hset(store.switches.key, str(ALL), value)
    came, state = store.turn(Mode.REFUSE)
    assert (came, state and state.since_us) == ("turned", now_us)


def test_of_a_value_of_no_known_mode_nothing_is_taken_over(store: Store) -> None:
    now_us = store.records.now_us()
    store.records.client.hset(store.switches.key, str(ALL), f"stop 0 1 {now_us + 9_000_000} {{}}")
    came, state = store.turn(Mode.OFF)
    assert came == "turned"
    assert state is not None
    assert (state.since_us, state.version) == (now_us, now_us | 1)


def test_a_version_that_no_clock_gives_stops_no_operator(store: Store) -> None:
    ahead = SwitchState(Mode.HOLD, version=9 * 10**15 - 1, since_us=1)
    store.records.client.hset(store.switches.key, str(ALL), ahead.encode())
    came, state = store.turn(Mode.HOLD)
    assert (came, state and state.version) == ("turned", store.records.now_us() | 1)
