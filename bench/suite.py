"""Run the benchmarks one after the other, each timed; a failure of one costs no other's figures."""

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
    "Benchmark",
    "BenchmarkRun",
    "Figures",
    "NotMeasured",
    "Outcome",
    "Stage",
    "announce",
    "minutes",
    "run",
]

Figures = dict[str, Any]
# A benchmark may take so much longer than expected before it stops making more rounds.
_PATIENCE = 1.5


class NotMeasured(Exception):
    """A benchmark cannot be measured here; the text says what is missing and how to get it."""


class Outcome(StrEnum):
    """How a benchmark ended."""

    MEASURED = "measured"
    FAILED = "failed"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Stage:
    """What a benchmark works with; past `deadline` it begins no further round."""

    bench: Bench
    database_url: str
    plan: Plan
    deadline: Deadline


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: `expected_s` in the full form, `quick_s` in the quick one, on two cores."""

    name: str
    title: str
    measure: Callable[[Stage], Figures]
    expected_s: float
    quick_s: float

    def expected(self, plan: Plan) -> float:
        """Seconds that it takes in the plan's form."""
        return self.quick_s if plan.form == "quick" else self.expected_s


@dataclass(frozen=True)
class BenchmarkRun:
    """How long a benchmark took and how it ended; `why` is empty where it was measured."""

    part: str
    seconds: float
    expected_s: float
    outcome: Outcome
    why: str = ""


def announce(benchmarks: Sequence[Benchmark], plan: Plan, say: Callable[[str], None]) -> None:
    """Announce what will be measured and how long it takes."""
    total_s = sum(benchmark.expected(plan) for benchmark in benchmarks)
    say(f"{plan.form} form: about {minutes(total_s)} min, at most {minutes(plan.longest_s)}")
    for number, benchmark in enumerate(benchmarks, 1):
        expected = minutes(benchmark.expected(plan))
        say(f"  {number:2}. {benchmark.name:12} {expected}  {benchmark.title}")


def run(
    benchmarks: Sequence[Benchmark],
    bench: Bench,
    database_url: str,
    plan: Plan,
    say: Callable[[str], None],
    keep: Callable[[Figures], None],
    clock: Clock = SYSTEM_CLOCK,
) -> Figures:
    """All figures, and under "course" what each benchmark took; `keep` gets them after each."""
    whole = Deadline(plan.longest_s, clock)
    figures: Figures = {}
    runs: list[BenchmarkRun] = []
    for number, benchmark in enumerate(benchmarks, 1):
        gone = minutes(plan.longest_s - whole.left_s)
        say(f"[{number}/{len(benchmarks)}] {benchmark.name}, at {gone}: {benchmark.title}")
        # No benchmark makes more rounds at the cost of those that come after it.
        spare_s = whole.left_s - sum(each.expected(plan) for each in benchmarks[number:])
        limit_s = min(spare_s, benchmark.expected(plan) * _PATIENCE)
        stage = Stage(bench, database_url, plan, Deadline(limit_s, clock))
        found, ended = _one(benchmark, stage, whole, clock)
        say(f"      {ended.outcome} in {minutes(ended.seconds)}{ended.why and ': '}{ended.why}")
        runs.append(ended)
        figures |= found
        figures["course"] = _suite(runs, plan.longest_s - whole.left_s)
        keep(figures)
    return figures


def minutes(seconds: float) -> str:
    """`m:ss`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _one(
    benchmark: Benchmark, stage: Stage, whole: Deadline, clock: Clock
) -> tuple[Figures, BenchmarkRun]:
    expected_s = benchmark.expected(stage.plan)
    if whole.passed:
        why = f"the run's {stage.plan.longest_s:g} s were used up before it began"
        return {}, BenchmarkRun(benchmark.name, 0.0, expected_s, Outcome.NOT_MEASURED, why)
    start = clock.monotonic_s()
    found: Figures = {}
    outcome, why = Outcome.MEASURED, ""
    try:
        found = benchmark.measure(stage)
    except NotMeasured as missing:
        outcome, why = Outcome.NOT_MEASURED, str(missing)
    except Exception as error:  # noqa: BLE001 - reported and kept; the exit code is 1
        traceback.print_exc()
        outcome, why = Outcome.FAILED, f"{type(error).__name__}: {error}".splitlines()[0]
    seconds = round(clock.monotonic_s() - start, 1)
    return found, BenchmarkRun(benchmark.name, seconds, expected_s, outcome, why)


def _suite(runs: Sequence[BenchmarkRun], seconds: float) -> Figures:
    return {"seconds": round(seconds, 1), "parts": [asdict(each) for each in runs]}
