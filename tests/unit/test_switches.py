"""A switch's field and state, and the script that keeps the newest state of each field."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from fakeredis import FakeRedis, FakeServer
from hypothesis import example, given
from hypothesis import strategies as st

from taskyard.clock import from_us
from taskyard.errors import InvalidSwitch
from taskyard.store import Script
from taskyard.switches import (
    IN_FORCE_LUA,
    Mode,
    RedisSwitches,
    SwitchField,
    SwitchScope,
    SwitchState,
    fields_of,
    next_version,
)
from taskyard.switches.redis_switches import UNREADABLE

FIELDS = (
    SwitchField.pause("exec"),
    SwitchField.kill("all"),
    SwitchField.kill("queue:exec"),
    SwitchField.kill("type:report.make"),
    SwitchField.kill("domain:billing"),
)
# Control characters come back escaped.
TEXTS = st.text(st.characters(blacklist_categories=["C", "Zl", "Zp"]), max_size=30)
US = st.integers(min_value=0, max_value=2 * 10**15)
STATES = st.builds(
    SwitchState,
    mode=st.sampled_from(Mode),
    version=st.integers(min_value=1, max_value=17 * 10**14),
    since_us=US,
    until_us=US,
    operator=TEXTS,
    via=TEXTS,
    reason=TEXTS,
    request_id=TEXTS,
)


@pytest.fixture
def switches() -> Iterator[RedisSwitches]:
    with FakeRedis(server=FakeServer()) as client:
        yield RedisSwitches(client, "acme")


@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_a_field_is_read_from_its_text(field: SwitchField) -> None:
    assert SwitchField.parse(str(field)) == field


def test_a_name_may_contain_colons_and_spaces() -> None:
    field = SwitchField.kill("queue:high prio:eu")
    assert (field.scope, field.name) == (SwitchScope.QUEUE, "high prio:eu")
    assert SwitchField.parse(str(field)) == field


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kill", "expected a switch such as"),
        ("stop all", "expected a switch such as"),
        ("kill all:exec", "expected all, queue:NAME"),
        ("kill queue", "expected all, queue:NAME"),
        ("kill queue:", "expected all, queue:NAME"),
        ("kill worker:w1", "expected all, queue:NAME"),
        ("pause all", "only a queue can be paused, got 'all'"),
        ("pause type:report", "only a queue can be paused, got 'type'"),
        ("kill type:" + "x" * 256, "1 to 255 characters .* got 256 characters"),
        ("kill type:a\nb", "no control characters"),
    ],
)
def test_a_field_that_cannot_be_is_refused_with_what_can(text: str, says: str) -> None:
    with pytest.raises(InvalidSwitch, match=says):
        SwitchField.parse(text)


def test_a_job_meets_the_switches_of_its_queue_type_and_domain() -> None:
    assert [str(field) for field in fields_of("exec", "report.make", "billing")] == [
        "kill all",
        "pause queue:exec",
        "kill queue:exec",
        "kill type:report.make",
        "kill domain:billing",
    ]
    assert SwitchField.kill("domain:billing") not in fields_of("exec", "report.make", None)


def test_the_kill_switch_on_everything_leaves_the_operators_queue_alone() -> None:
    met = fields_of("ops", "taskyard.ops.replay", None)
    assert SwitchField.kill("all") not in met
    assert SwitchField.kill("queue:ops") in met


@given(STATES)
def test_a_state_is_read_from_its_text(state: SwitchState) -> None:
    assert SwitchState.parse(state.encode()) == state
    assert SwitchState.parse(state.encode().encode()) == state


@pytest.mark.parametrize(
    ("mode", "until_us", "in_force", "over"),
    [
        (Mode.OFF, 0, False, False),
        (Mode.OFF, 99, False, False),
        (Mode.HOLD, 0, True, False),
        (Mode.HOLD, 101, True, False),
        (Mode.HOLD, 100, False, True),
        (Mode.REFUSE, 99, False, True),
    ],
)
def test_python_and_lua_agree_whether_a_switch_is_in_force(
    mode: Mode, until_us: int, in_force: bool, over: bool
) -> None:
    state = SwitchState(mode, version=1, since_us=50, until_us=until_us, reason="a {b} 1 2 3")
    assert (state.in_force(100), state.over(100)) == (in_force, over)
    script = Script(
        f"{IN_FORCE_LUA} local mode, till, since = switch_in_force(ARGV[1], tonumber(ARGV[2]))"
        " return {mode or 'none', till or -1, since or -1}"
    )
    with FakeRedis(server=FakeServer()) as client:
        answer = script(client, [], [state.encode(), 100])
    assert answer == ([mode.encode(), until_us, 50] if in_force else [b"none", -1, -1])


def test_since_stays_while_a_switch_goes_on_and_begins_anew_after_it() -> None:
    on = SwitchState(Mode.REFUSE, version=1, since_us=10, until_us=200)
    again = SwitchState(Mode.HOLD, version=2, since_us=0)
    off = SwitchState(Mode.OFF, version=3, since_us=0)
    assert again.since(None, 100).since_us == 100
    assert again.since(on, 100).since_us == 10
    assert again.since(on, 200).since_us == 200
    assert off.since(on, 100).since_us == 100
    unreadable = SwitchState(Mode.HOLD, version=0, since_us=0)
    assert again.since(unreadable, 100).since_us == 100
    to_come = replace(on, since_us=101)
    assert again.since(to_come, 100).since_us == 100
    ended = off.since(on, 100)
    assert off.since(ended, 150).since_us == 100
    assert again.since(ended, 150).since_us == 150


@given(last=US, now=US, odd=st.booleans())
def test_versions_only_grow_and_those_of_both_stores_never_meet(
    last: int, now: int, odd: bool
) -> None:
    version = next_version(last, now, odd=odd)
    assert version > last
    assert version >= now
    assert version - max(last + 1, now) <= 1
    assert version % 2 == int(odd)


@given(
    st.lists(st.tuples(st.sampled_from(FIELDS), STATES), max_size=12),
    st.randoms(use_true_random=False),
)
def test_in_any_order_and_with_repeats_the_newest_state_of_each_field_holds(
    puts: list[tuple[SwitchField, SwitchState]], order: random.Random
) -> None:
    # One writer gives a version once.
    unique = {(field, state.version): state for field, state in puts}
    newest: dict[SwitchField, SwitchState] = {}
    for (field, version), state in unique.items():
        if field not in newest or version > newest[field].version:
            newest[field] = state
    calls = [(field, state) for (field, _), state in unique.items()] * 2
    order.shuffle(calls)
    with FakeRedis(server=FakeServer()) as client:
        switches = RedisSwitches(client, "acme")
        seen: dict[SwitchField, int] = {}
        for field, state in calls:
            changed = switches.put(field, state)
            assert changed == (state.version > seen.get(field, 0))
            seen[field] = max(state.version, seen.get(field, 0))
        read = switches.read()
    assert read.states == newest
    assert read.unreadable == ()


def test_an_older_state_does_not_bring_back_a_switch_that_is_off(switches: RedisSwitches) -> None:
    field = SwitchField.kill("all")
    on = SwitchState(Mode.HOLD, version=10, since_us=10)
    off = SwitchState(Mode.OFF, version=11, since_us=11)
    assert switches.put(field, off)
    assert not switches.put(field, on)
    assert not switches.put(field, off)
    assert switches.read().states == {field: off}
    assert switches.read().in_force() == {}


VALUES = (
    "junk",
    "hold",
    "stop 0 1 2 {}",
    "stop 0 1 9 {}",
    "off",
    "off 0 x 2 {}",
    "hold 0 1 2 3",
    b"\xff",
    "",
)


@pytest.mark.parametrize("value", VALUES)
def test_a_switch_whose_value_cannot_be_read_counts_as_a_hold_and_is_replaced(
    switches: RedisSwitches, value: str | bytes
) -> None:
    field, state = SwitchField.pause("exec"), SwitchState(Mode.OFF, version=3, since_us=1)
    switches.client.hset(switches.key, str(field), value)
    read = switches.read()
    assert (read.states, read.unreadable) == ({}, (str(field),))
    held = {field: SwitchState(Mode.HOLD, version=0, since_us=0)}
    assert read.in_force() == held
    script = Script(f"{IN_FORCE_LUA} return {{switch_in_force(ARGV[1], 100)}}")
    assert script(switches.client, [], [value]) == [b"hold", 0, 0]
    assert switches.put(field, state)
    assert switches.read().in_force() == {}


@given(
    st.one_of(
        st.binary(max_size=40),
        st.from_regex(rb"(off|refuse|hold|stop) [0-9]{1,20} [0-9]{1,20} [0-9]{1,20} ?[{].*"),
    )
)
@example(b"refuse 00 0 0 {")
def test_whatever_is_written_python_and_lua_agree_whether_it_is_on(value: bytes) -> None:
    now_us = 1_800_000_000_000_000
    script = Script(
        f"{IN_FORCE_LUA} return {{(switch_in_force(ARGV[1], tonumber(ARGV[2])) or 'none')}}"
    )
    field = SwitchField.kill("all")
    with FakeRedis(server=FakeServer()) as client:
        switches = RedisSwitches(client, "acme")
        client.hset(switches.key, str(field), value)
        read = replace(switches.read(), now_us=now_us)
        (mode,) = script(client, [], [value, now_us])
    on = read.in_force().get(field)
    assert mode.decode() == ("none" if on is None else on.mode)


def test_what_is_written_by_others_is_cut_escaped_and_stored_by_postgres() -> None:
    by = '{"operator": "a\\u0000b\\ud800", "via": [1], "reason": "' + "x" * 5000 + '"}'
    state = SwitchState.parse(f"hold 99999999999999999999 99999999999999999999 7 {by}")
    assert (state.operator, state.via) == ("a\\x00b\\ud800", "[1]")
    assert len(state.reason) == 2000
    assert from_us(state.until_us).year == from_us(state.since_us).year == 2255
    assert SwitchState.parse("hold 0 1 2 {" + "[" * 100_000).reason == ""


def test_a_field_that_no_job_can_meet_has_no_effect(switches: RedisSwitches) -> None:
    switches.client.hset(switches.key, mapping={"stop all": "x", "b": b"\xff"})
    read = switches.read()
    assert read.in_force() == {}
    assert set(read.unreadable) == {"stop all", "b"}


def test_a_version_that_no_clock_gives_is_obeyed_and_replaced_by_any_state(
    switches: RedisSwitches,
) -> None:
    field = SwitchField.kill("all")
    ahead = SwitchState(Mode.HOLD, version=9 * 10**15, since_us=1)
    lifted = SwitchState(Mode.OFF, version=2, since_us=2)
    switches.client.hset(switches.key, str(field), ahead.encode())
    read = switches.read()
    assert (list(read.in_force()), read.believed()) == ([field], {field: UNREADABLE})
    assert switches.put(field, lifted)
    assert switches.read().states == {field: lifted}


def test_the_key_is_in_the_namespace(switches: RedisSwitches) -> None:
    assert switches.key == "acme:switches"
