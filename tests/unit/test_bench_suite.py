"""A run tells its plan, times its parts, and loses nothing by one that fails."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from bench.benchmarks import BENCHMARKS
from bench.contenders import CELERY_RABBITMQ
from bench.plan import FULL, QUICK
from bench.processes import Bench
from bench.suite import Benchmark, Figures, NotMeasured, Stage, announce, minutes, run

from taskyard.clock import SYSTEM_CLOCK

BENCH = Bench("redis://:secret@127.0.0.1:1/0", Path("/nowhere"))


class Watch:
    """A clock that the parts move."""

    def __init__(self) -> None:
        self.at_s = 0.0

    def now(self) -> datetime:
        return SYSTEM_CLOCK.now()

    def monotonic_s(self) -> float:
        return self.at_s

    def wait_s(self, seconds: float) -> None:
        self.at_s += seconds


def _part(name: str, watch: Watch, takes_s: float, error: Exception | None = None) -> Benchmark:
    def measure(_: Stage) -> Figures:
        watch.wait_s(takes_s)
        if error is not None:
            raise error
        return {name: takes_s}

    return Benchmark(name, f"title of {name}", measure, expected_s=10, quick_s=2)


def _run(watch: Watch, *benchmarks: Benchmark) -> tuple[Figures, list[Figures]]:
    kept: list[Figures] = []
    plan = replace(FULL, longest_s=100.0)
    found = run(
        benchmarks, BENCH, "", plan, lambda _: None, lambda so_far: kept.append(dict(so_far)), watch
    )
    return found, kept


def test_the_result_says_how_long_it_ran_and_which_parts() -> None:
    watch = Watch()
    found, kept = _run(watch, _part("one", watch, 7), _part("two", watch, 5))
    assert (found["one"], found["two"]) == (7, 5)
    assert found["course"]["seconds"] == 12
    assert [(p["part"], p["seconds"], p["outcome"]) for p in found["course"]["parts"]] == [
        ("one", 7, "measured"),
        ("two", 5, "measured"),
    ]
    assert "two" not in kept[0]
    assert kept[1] == found


def test_a_part_that_fails_is_told_and_costs_the_others_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    watch = Watch()
    failing = _part("one", watch, 1, TimeoutError("4 jobs left"))
    found, _ = _run(watch, failing, _part("two", watch, 5))
    assert found["two"] == 5
    first = found["course"]["parts"][0]
    assert (first["outcome"], first["why"]) == ("failed", "TimeoutError: 4 jobs left")
    assert "Traceback" in capsys.readouterr().err


def test_what_this_machine_lacks_is_no_failure() -> None:
    watch = Watch()
    found, _ = _run(watch, _part("one", watch, 0, NotMeasured("install RabbitMQ")))
    only = found["course"]["parts"][0]
    assert (only["outcome"], only["why"]) == ("not measured", "install RabbitMQ")


def test_no_part_begins_after_the_longest_time() -> None:
    watch = Watch()
    found, _ = _run(watch, _part("one", watch, 101), _part("two", watch, 5))
    assert "two" not in found
    last = found["course"]["parts"][1]
    assert last["outcome"] == "not measured"
    assert last["why"] == "the run's 100 s were used up before it began"


def _deadlines(*expected_s: float) -> list[float]:
    seen: list[float] = []

    def measure(stage: Stage) -> Figures:
        seen.append(stage.deadline.left_s)
        return {}

    _run(Watch(), *(Benchmark("any", "", measure, seconds, 2) for seconds in expected_s))
    return seen


def test_a_part_may_begin_rounds_for_one_and_a_half_of_what_is_expected() -> None:
    assert _deadlines(10, 20) == [15, 30]


def test_a_part_makes_no_rounds_at_the_cost_of_those_after_it() -> None:
    assert _deadlines(50, 40, 10) == [50, 60, 15]


def test_the_plan_is_told_before_the_run() -> None:
    said: list[str] = []
    announce(BENCHMARKS, FULL, said.append)
    assert len(said) == 1 + len(BENCHMARKS)
    for benchmark, line in zip(BENCHMARKS, said[1:], strict=True):
        assert f"{benchmark.name} " in line
        assert minutes(benchmark.expected_s) in line


def test_the_parts_of_both_forms_are_expected_to_fit() -> None:
    for plan in (FULL, QUICK):
        assert sum(benchmark.expected(plan) for benchmark in BENCHMARKS) <= plan.longest_s
    assert FULL.longest_s <= 30 * 60


def test_rabbitmq_contenders_keep_their_records_in_redis() -> None:
    bench = replace(BENCH, rabbitmq_url="amqp://127.0.0.1:2//")
    variables = bench.environment(CELERY_RABBITMQ)
    assert variables["BENCH_BROKER_URL"] == "amqp://127.0.0.1:2//"
    assert variables["BENCH_REDIS_URL"] == "redis://:secret@127.0.0.1:1/1"


def test_rabbitmq_contenders_are_refused_without_a_rabbitmq() -> None:
    with pytest.raises(ValueError, match="Celery on RabbitMQ needs a RabbitMQ"):
        BENCH.environment(CELERY_RABBITMQ)
