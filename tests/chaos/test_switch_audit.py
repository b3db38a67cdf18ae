"""What the auditor says of switches: nothing where they held, and each one that did not."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from chaos.switch_audit import Came, Look, behind_s, differing, wrong_events

from taskyard.jobs.states import Event
from taskyard.switches import Mode, SwitchField, SwitchState

PAUSE = SwitchField.pause("exec")
KILL = SwitchField.kill("queue:exec")
ALL = SwitchField.kill("all")
TYPE = SwitchField.kill("type:deed")


def state(mode: Mode, version: int = 1, until_us: int = 0) -> SwitchState:
    return SwitchState(
        mode, version=version, since_us=version, until_us=until_us,
        operator="ops", via="token", reason="maintenance", request_id="r",
    )  # fmt: skip


HOLD, REFUSE, OFF = state(Mode.HOLD), state(Mode.REFUSE), state(Mode.OFF)


def looks(*states: Mapping[SwitchField, SwitchState], every_us: int = 100) -> list[Look]:
    return [Look(index * every_us, each) for index, each in enumerate(states, 1)]


def came(event: Event, at_us: int = 150, queue: str = "exec") -> Came:
    return Came("job", event, at_us, queue, "deed")


@pytest.mark.parametrize(
    ("event", "on"),
    [
        (Event.BEGIN, {PAUSE: HOLD}),
        (Event.BEGIN, {KILL: HOLD}),
        (Event.BEGIN, {ALL: HOLD}),
        (Event.BEGIN, {TYPE: HOLD}),
        (Event.ADMIT, {KILL: HOLD}),
        (Event.ADMIT, {KILL: REFUSE}),
        (Event.ADMIT, {ALL: REFUSE}),
    ],
)
def test_a_job_that_begins_or_comes_between_two_looks_at_a_switch_is_named(
    event: Event, on: dict[SwitchField, SwitchState]
) -> None:
    (name,) = on
    found = list(wrong_events([came(event)], looks(on, on)))
    assert found == [f"job: {event} although {name} was on"]


@pytest.mark.parametrize(
    ("event", "before", "behind"),
    [
        (Event.BEGIN, {}, {}),
        (Event.BEGIN, {PAUSE: OFF}, {PAUSE: OFF}),
        # A pause accepts, and a kill switch that only refuses lets run what came before it.
        (Event.ADMIT, {PAUSE: HOLD}, {PAUSE: HOLD}),
        (Event.BEGIN, {KILL: REFUSE}, {KILL: REFUSE}),
        # The moment of a flip.
        (Event.BEGIN, {}, {PAUSE: HOLD}),
        (Event.BEGIN, {PAUSE: HOLD}, {PAUSE: state(Mode.OFF, 2)}),
        # Off and on again between two looks.
        (Event.BEGIN, {PAUSE: HOLD}, {PAUSE: state(Mode.HOLD, 3)}),
        # Redis was flushed.
        (Event.BEGIN, {PAUSE: HOLD}, {}),
        # Its end has come.
        (Event.BEGIN, {PAUSE: state(Mode.HOLD, 1, 160)}, {PAUSE: state(Mode.HOLD, 1, 160)}),
        # Of another queue.
        (Event.BEGIN, {SwitchField.pause("plan"): HOLD}, {SwitchField.pause("plan"): HOLD}),
    ],
)
def test_a_job_that_no_switch_held_all_the_time_is_not_named(
    event: Event,
    before: dict[SwitchField, SwitchState],
    behind: dict[SwitchField, SwitchState],
) -> None:
    assert list(wrong_events([came(event)], looks(before, behind))) == []


def test_what_happens_before_the_first_look_after_the_last_or_in_a_gap_is_not_judged() -> None:
    seen = looks({PAUSE: HOLD}, {PAUSE: HOLD})
    assert list(wrong_events([came(Event.BEGIN, 50), came(Event.BEGIN, 250)], seen)) == []
    far = looks({PAUSE: HOLD}, {PAUSE: HOLD}, every_us=600_000)
    assert list(wrong_events([came(Event.BEGIN, 700_000)], far)) == []


def test_the_time_for_which_redis_lacks_a_switch_counts_from_the_end_of_the_last_fault() -> None:
    second = 1_000_000
    truths = [(0, {PAUSE: HOLD})]
    with_it, without = {PAUSE: HOLD}, dict[SwitchField, SwitchState]()
    seen = [Look(at * second, without if 2 <= at < 8 else with_it) for at in range(1, 10)]
    assert behind_s(seen, truths, []) == 5.0
    assert behind_s(seen, truths, [(1 * second, 4 * second)]) == 3.0
    assert behind_s(seen, truths, [(3 * second, 9 * second)]) == 0.0
    assert behind_s(looks(with_it, with_it), truths, []) == 0.0


def test_an_older_state_in_redis_counts_as_none() -> None:
    second = 1_000_000
    newer = [(0, {PAUSE: state(Mode.OFF, 2)})]
    stale = [Look(at * second, {PAUSE: HOLD}) for at in (1, 2, 3)]
    assert behind_s(stale, newer, []) == 2.0
    assert behind_s(stale, [(5 * second, {PAUSE: state(Mode.OFF, 2)})], []) == 0.0


def test_stores_and_operator_that_agree_are_not_named() -> None:
    assert list(differing({PAUSE: True}, {PAUSE: HOLD}, {PAUSE: HOLD}, 9)) == []
    assert list(differing({PAUSE: False}, {}, {}, 9)) == []
    over = state(Mode.HOLD, until_us=5)
    assert list(differing({PAUSE: False}, {PAUSE: over}, {PAUSE: over}, 9)) == []


@pytest.mark.parametrize(
    ("wanted", "postgres", "redis", "wrong"),
    [
        ({PAUSE: True}, {PAUSE: HOLD}, {}, "Postgres has hold in version 1, Redis nothing"),
        ({}, {}, {PAUSE: HOLD}, "Postgres has nothing, Redis hold in version 1"),
        (
            {PAUSE: True},
            {PAUSE: state(Mode.HOLD, 2)},
            {PAUSE: HOLD},
            "Postgres has hold in version 2, Redis hold in version 1",
        ),
        ({PAUSE: False}, {PAUSE: HOLD}, {PAUSE: HOLD}, "is on, and its operator left it off"),
        ({PAUSE: True}, {PAUSE: OFF}, {PAUSE: OFF}, "is off, and its operator left it on"),
        ({PAUSE: True}, {}, {}, "is off, and its operator left it on"),
    ],
)
def test_a_switch_that_was_forgotten_or_stays_by_mistake_is_named(
    wanted: dict[SwitchField, bool],
    postgres: dict[SwitchField, SwitchState],
    redis: dict[SwitchField, SwitchState],
    wrong: str,
) -> None:
    found = list(differing(wanted, postgres, redis, 9))
    assert len(found) == 1
    assert wrong in found[0]
