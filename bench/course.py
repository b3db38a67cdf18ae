"""The course of a run: its parts one after the other, each timed, none able to lose the others."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from bench.deadline import Deadline
from bench.plan import Plan
from bench.processes import Bench
from taskyard.clock import SYSTEM_CLOCK, Clock

__all__ = [
    "Figures",
    "NotMeasured",
    "Outcome",
    "Part",
    "PartRun",
    "Stage",
    "announce",
    "minutes",
    "run",
]

Figures = dict[str, Any]
# A part may take so much longer than expected before it stops making more rounds.
_PATIENCE = 1.5


class NotMeasured(Exception):
    """A part cannot be measured here; the text says what is missing and how to get it."""


class Outcome(StrEnum):
    """How a part ended."""

    MEASURED = "measured"
    FAILED = "failed"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Stage:
    """What a part works with; past `deadline` it begins no further round."""

    bench: Bench
    database_url: str
    plan: Plan
    deadline: Deadline


@dataclass(frozen=True)
class Part:
    """One part: `expected_s` in the full form, `quick_s` in the quick one, on two cores."""

    name: str
    title: str
    measure: Callable[[Stage], Figures]
    expected_s: float
    quick_s: float

    def expected(self, plan: Plan) -> float:
        """Seconds that it takes in the plan's form."""
        return self.quick_s if plan.form == "quick" else self.expected_s


@dataclass(frozen=True)
class PartRun:
    """How long a part took and how it ended; `why` is empty where it was measured."""

    part: str
    seconds: float
    expected_s: float
    outcome: Outcome
    why: str = ""


def announce(parts: Sequence[Part], plan: Plan, say: Callable[[str], None]) -> None:
    """Tell what will be measured and how long it takes."""
    total_s = sum(part.expected(plan) for part in parts)
    say(f"{plan.form} form: about {minutes(total_s)} min, at most {minutes(plan.longest_s)}")
    for number, part in enumerate(parts, 1):
        say(f"  {number:2}. {part.name:12} {minutes(part.expected(plan))}  {part.title}")


def run(
    parts: Sequence[Part],
    bench: Bench,
    database_url: str,
    plan: Plan,
    say: Callable[[str], None],
    keep: Callable[[Figures], None],
    clock: Clock = SYSTEM_CLOCK,
) -> Figures:
    """Every part's figures, and under `course` what each took; `keep` gets them after each part."""
    whole = Deadline(plan.longest_s, clock)
    figures: Figures = {}
    runs: list[PartRun] = []
    for number, part in enumerate(parts, 1):
        gone = minutes(plan.longest_s - whole.left_s)
        say(f"[{number}/{len(parts)}] {part.name}, at {gone}: {part.title}")
        # Nobody makes more rounds at the cost of those who come after.
        spare_s = whole.left_s - sum(each.expected(plan) for each in parts[number:])
        limit_s = min(spare_s, part.expected(plan) * _PATIENCE)
        stage = Stage(bench, database_url, plan, Deadline(limit_s, clock))
        found, told = _one(part, stage, whole, clock)
        say(f"      {told.outcome} in {minutes(told.seconds)}{told.why and ': '}{told.why}")
        runs.append(told)
        figures |= found
        figures["course"] = _course(runs, plan.longest_s - whole.left_s)
        keep(figures)
    return figures


def minutes(seconds: float) -> str:
    """`m:ss`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _one(part: Part, stage: Stage, whole: Deadline, clock: Clock) -> tuple[Figures, PartRun]:
    expected_s = part.expected(stage.plan)
    if whole.passed:
        why = f"the run's {stage.plan.longest_s:g} s were used up before it began"
        return {}, PartRun(part.name, 0.0, expected_s, Outcome.NOT_MEASURED, why)
    start = clock.monotonic_s()
    found: Figures = {}
    outcome, why = Outcome.MEASURED, ""
    try:
        found = part.measure(stage)
    except NotMeasured as missing:
        outcome, why = Outcome.NOT_MEASURED, str(missing)
    except Exception as error:  # noqa: BLE001 - told, kept, exit code 1; the others' figures stand
        traceback.print_exc()
        outcome, why = Outcome.FAILED, f"{type(error).__name__}: {error}".splitlines()[0]
    seconds = round(clock.monotonic_s() - start, 1)
    return found, PartRun(part.name, seconds, expected_s, outcome, why)


def _course(runs: Sequence[PartRun], seconds: float) -> Figures:
    return {"seconds": round(seconds, 1), "parts": [asdict(each) for each in runs]}
