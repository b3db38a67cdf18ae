"""The auditor's own judgement, on cases that no storm should bring about, and what it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chaos.load import POISON, Plan
from chaos.poison import Case, verdict
from chaos.report import failed, put, read_json, said, table, write_json, write_table
from chaos.stranded import begun_spans, held_spans, last_before

LIMIT = 3
LOST = {"outcome": "lost", "code": "worker_lost"}
BY_DEATHS = {"counter": "deaths", "count": LIMIT, "limit": LIMIT}


def case(**fields: Any) -> Case:
    exact = {
        "category": "poison",
        "evidence": BY_DEATHS,
        "attempts": [LOST] * LIMIT,
        "begins": LIMIT,
        "releases": 0,
        "runs": LIMIT,
    }
    return Case(**{**exact, **fields})


def result(storm: str, setup: str, **fields: Any) -> dict[str, Any]:
    flawless = {
        "storm": storm,
        "setup": setup,
        "jobs": 2000,
        "rate": 120.0,
        "seed": 1,
        "skipped": "",
        "lost": 0,
        "doubled": 0,
        "letters_without_row": 0,
        "ended_by_itself": 0,
        "stranded": 0,
        "poison": 4,
        "poison_exact": 4,
        "recovery_s": 1.5,
        "took_s": 60.0,
    }
    return {**flawless, **fields}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"runs": LIMIT - 1},  # a storm killed the process before the handler
        {"begins": LIMIT + 2, "releases": 2, "runs": LIMIT + 2},  # given back, so not counted
    ],
)
def test_poison_that_died_at_its_count_is_exact(fields: dict[str, Any]) -> None:
    assert verdict(case(**fields), LIMIT) is None


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"category": None}, "it has no letter"),
        ({"category": "timeout"}, "it died of timeout"),
        ({"evidence": {"counter": "deliveries", "count": 11}}, "expected poison by deaths"),
        ({"evidence": {**BY_DEATHS, "count": 4}}, "4 deaths in its cause, expected 3"),
        ({"attempts": [LOST] * 2}, "2 deaths in its letter's history, expected 3"),
        (
            {"attempts": [LOST] * 3 + [{"outcome": "retrying"}]},
            "1 other outcomes in its letter's history, expected 0",
        ),
        ({"begins": 4}, "4 begins in the ledger, expected 3"),
        ({"begins": 3, "releases": 1}, "3 begins in the ledger, expected 4"),
        ({"runs": 4}, "its handler ran 4 times in 3 begins"),
    ],
)
def test_poison_that_died_early_late_or_of_something_else_is_named(
    fields: dict[str, Any], fault: str
) -> None:
    assert fault in str(verdict(case(**fields), LIMIT))


@pytest.mark.parametrize(("jobs", "poison"), [(150, 2), (2_000, 4), (20_000, 40)])
def test_one_job_in_500_is_poison_and_the_same_ones_again(jobs: int, poison: int) -> None:
    plan = Plan("pause Redis", "redis", jobs, 1, 100.0)
    assert plan.kinds().count(POISON) == poison
    assert plan.kinds() == plan.kinds()


def test_a_longer_storm_spreads_its_faults() -> None:
    assert Plan("pause Redis", "redis", 150, 1, 40.0).stretch == 1
    assert Plan("pause Redis", "redis", 18_000, 1, 200.0).stretch == 3


@pytest.mark.parametrize(
    "broken",
    [
        {"lost": 1},
        {"doubled": 1},
        {"letters_without_row": 1},
        {"ended_by_itself": 1},
        {"contradictions": 1},
        {"stranded": 1},
        {"poison_exact": 3},
        {"recovery_s": 45.1},
    ],
)
def test_each_broken_promise_fails_the_run(broken: dict[str, Any]) -> None:
    assert not failed(result("pause Redis", "redis"))
    assert failed(result("pause Redis", "redis", **broken))


def test_over_kombus_transport_what_it_loses_and_holds_back_is_counted_and_no_failure() -> None:
    assert not failed(result("kill workers", "app-kombu", stranded=3, lost_in_pop=2))
    assert failed(result("kill workers", "app-kombu", lost=1))
    assert failed(result("kill workers", "app", stranded=3))


def test_a_storm_that_is_run_again_takes_the_place_of_its_earlier_result(tmp_path: Path) -> None:
    file = tmp_path / "build" / "chaos.json"
    assert read_json(file) == []
    results: list[dict[str, Any]] = []
    for storm, broker in (("pause Redis", "rabbitmq"), ("kill children", "redis")):
        results = put(results, result(storm, broker, lost=1))
    write_json(file, put(results, result("pause Redis", "rabbitmq")))
    found = read_json(file)
    assert [(one["storm"], one["lost"]) for one in found] == [
        ("kill children", 1),
        ("pause Redis", 0),
    ]


def test_the_page_tells_each_size_that_was_run_and_keeps_what_is_around(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- storms -->\nold\n<!-- /storms -->\nafter\n")
    skipped = {"storm": "pause Postgres", "setup": "redis", "skipped": "no", "took_s": None}
    results = [
        result("pause Redis", "redis"),
        result("pause Redis", "rabbitmq", jobs=20_000, rate=250.0),
        skipped,
    ]
    write_table(page, results)
    whole = page.read_text()
    assert whole.startswith("before\n")
    assert whole.endswith("after\n")
    assert "old" not in whole
    assert "1 storms of 20,000 jobs over rabbitmq at 250 a second" in said(results)
    assert "| pause Redis | redis | 2000 |" in table(results)
    assert "| 4/4 |" in table(results)
    assert "| skipped: no |" in table(results)
    assert "None" not in table([result("pause Redis", "redis", flips_back_s=None)])


@pytest.mark.parametrize(
    ("history", "waited"),
    [
        ([(1.0, "begin"), (30.0, "begin")], [20.0]),
        ([], []),
        ([(30.0, "begin")], [20.0]),
        # The wait of a decided retry in its queue is no event's.
        ([(1.0, "begin"), (2.0, "retry"), (99.0, "begin")], []),
    ],
)
def test_a_held_job_waits_from_its_workers_death_to_its_next_event(
    history: list[tuple[float, str]], waited: list[float]
) -> None:
    spans = held_spans({"job": history}, [("job", 10.0)])
    assert [until - since for _, since, until in spans] == waited


def test_a_begun_job_waits_from_the_first_fault_or_from_when_workers_were_there_again() -> None:
    history = {"job": [(1.0, "begin"), (90.0, "begin"), (91.0, "complete")]}
    (span,) = begun_spans(history, [70.0, 10.0, 0.5])
    assert span == ("job", 10.0, 90.0)
    assert last_before(90.0, 10.0, []) == 10.0
    assert last_before(90.0, 10.0, [5.0, 70.0, 95.0]) == 70.0
