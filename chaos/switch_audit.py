"""Whether switches held what they must, judged from what an observer saw in both stores.

`begin` and `admit` read the switches in the step in which they change the record, by Redis's clock.
So no event may have a time between two looks at Redis that both found the switch in force: the
moment of the flip needs no allowance.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from taskyard.jobs.states import Event
from taskyard.switches import Kind, Mode, SwitchField, SwitchState, fields_of

__all__ = ["IN_FORCE_S", "Came", "Look", "behind_s", "differing", "wrong_events"]

IN_FORCE_S: Final = 5.0
"""So long Redis may lack a switch that Postgres has, while both and a relay run."""
# Between looks that are further apart, as while Redis was down, a switch may have been off.
_APART_US: Final = 500_000


@dataclass(frozen=True, slots=True)
class Look:
    """The switches in Redis at one moment of its clock, in microseconds."""

    at_us: int
    states: Mapping[SwitchField, SwitchState] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Came:
    """An event of the ledger by which a job came or began; `at_us` is of Redis's clock."""

    job_id: str
    event: Event
    at_us: int
    queue: str
    job_type: str


def wrong_events(events: Iterable[Came], looks: Sequence[Look]) -> Iterator[str]:
    """Each job that was admitted or began although a switch was in force, and that switch."""
    moments = [look.at_us for look in looks]
    for came in events:
        after = bisect_left(moments, came.at_us)
        if not 0 < after < len(looks):
            continue
        before, behind = looks[after - 1], looks[after]
        if behind.at_us - before.at_us > _APART_US:
            continue
        for name in fields_of(came.queue, came.job_type, None):
            if _stops(name, came.event, before) and _same(name, before, behind):
                yield f"{came.job_id}: {came.event} although {name} was on"


def _stops(name: SwitchField, event: Event, look: Look) -> bool:
    state = look.states.get(name)
    if state is None or not state.in_force(look.at_us):
        return False
    # A pause accepts what comes; a kill switch that only refuses lets run what came before it.
    return name.kind is Kind.KILL if event is Event.ADMIT else state.mode is Mode.HOLD


def _same(name: SwitchField, before: Look, behind: Look) -> bool:
    state, other = before.states[name], behind.states.get(name)
    return other is not None and other.version == state.version and other.in_force(behind.at_us)


def behind_s(
    looks: Sequence[Look],
    truths: Sequence[tuple[int, Mapping[SwitchField, SwitchState]]],
    faults_us: Sequence[tuple[int, int]],
) -> float:
    """The longest time for which Redis lacked the state that Postgres had; in seconds.

    `truths` are what Postgres had at moments of the same clock. It counts from the end of the last
    fault, and not during one.
    """
    moments, since, longest_us = [at for at, _ in truths], dict[SwitchField, tuple[int, int]](), 0
    for look in looks:
        at = bisect_left(moments, look.at_us)
        if not at or any(began <= look.at_us < ended for began, ended in faults_us):
            continue
        over_us = max((ended for _, ended in faults_us if ended <= look.at_us), default=0)
        for name, state in truths[at - 1][1].items():
            found = look.states.get(name)
            version, from_us = since.get(name, (0, 0))
            if found is not None and found.version >= state.version:
                since.pop(name, None)
                continue
            if version != state.version:
                from_us = look.at_us
                since[name] = (state.version, from_us)
            longest_us = max(longest_us, look.at_us - max(from_us, over_us))
    return longest_us / 1e6


def differing(
    wanted: Mapping[SwitchField, bool],
    postgres: Mapping[SwitchField, SwitchState],
    redis: Mapping[SwitchField, SwitchState],
    now_us: int,
) -> Iterator[str]:
    """Each switch of which the operator and the two stores do not say the same.

    `wanted` says of each switch whether the operator has left it on.
    """
    for name in sorted({*wanted, *postgres, *redis}):
        kept, found = postgres.get(name), redis.get(name)
        # A switch that was never turned is in neither.
        if (kept and kept.version) != (found and found.version):
            yield f"{name}: Postgres has {_text(kept)}, Redis {_text(found)}"
        on = kept is not None and kept.in_force(now_us)
        if name in wanted and wanted[name] is not on:
            yield f"{name} is {'on' if on else 'off'}, and its operator left it {_word(not on)}"


def _text(state: SwitchState | None) -> str:
    return "nothing" if state is None else f"{state.mode} in version {state.version}"


def _word(on: bool) -> str:
    return "on" if on else "off"
