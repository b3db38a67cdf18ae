"""The page's figures come from the report, all of them, and nothing else on the page is one."""

import re
from pathlib import Path
from typing import Any

import pytest
from bench.page import END, START, put, render
from bench.promises import FIGURES, kept, not_kept
from bench.report import show

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
# The shape of the measurement, not what was found.
HOW_IT_IS_MEASURED = {"85 %", "5 %", "5 ms", "2 ms", "1,000"}
TURNS = {
    "median": 1.5,
    "lowest": 0.36,
    "lower_quartile": 1.2,
    "upper_quartile": 1.9,
    "highest": 2.8,
    "turns": 20,
}
BARE: dict[str, Any] = {
    "at": "2026-01-02T03:04:05+00:00",
    "form": "quick",
    "machine": {"cores": "2"},
    "settings": {"Taskyard": "everything on"},
    "course": {
        "seconds": 754.0,
        "parts": [
            {
                "part": "rabbitmq",
                "seconds": 3.0,
                "expected_s": 35,
                "outcome": "not measured",
                "why": "no RabbitMQ",
            }
        ],
    },
}
LAG = {
    "jobs": 30000,
    "enqueued_per_s": 11000.0,
    "burst_events": 20000,
    "burst_empty_after_s": 4.0,
    "jobs_per_s": 800.0,
    "events_per_s": 1600.0,
    "greatest_events": 1234,
    "greatest_s": 0.7,
    "growth_per_s": -2.0,
    "empty_after_s": 0.4,
    "bound_events": 600000,
    "gaps": 0,
    "jobs_missing": 0,
}


def test_the_range_of_the_turns_stands_beside_the_figure() -> None:
    text = render({**BARE, "throughput_vs_celery": 1.5, "throughput_vs_celery_turns": TURNS})
    row = "| `throughput_vs_celery` | 1.5 | 0.36 | 1.2 - 1.9 | 2.8 | 20 | at least 1.4 | yes |"
    assert row in text


def test_a_promise_that_is_not_kept_is_named() -> None:
    report = {**BARE, "throughput_vs_celery": 1.39, "worker_memory_vs_celery": 1.2}
    assert not_kept(report) == ["throughput_vs_celery", "worker_memory_vs_celery"]
    text = render(report)
    assert "Not kept in this run: `throughput_vs_celery` (1.39, promised at least 1.4)" in text
    assert "| `worker_memory_vs_celery` | 1.2 |  |  |  |  | at most 1.1 | **no** |" in text


def test_bounds_themselves_keep_the_promise() -> None:
    assert kept("throughput_vs_celery", {"throughput_vs_celery": 1.4}) is True
    assert kept("redis_round_trips_per_job", {"redis_round_trips_per_job": 2.06}) is False
    assert kept("rabbitmq_throughput_vs_celery", {"rabbitmq_throughput_vs_celery": 0.1}) is None


def test_what_was_not_measured_says_so_and_is_not_called_kept() -> None:
    text = render(BARE)
    for key in FIGURES:
        assert f"| `{key}` | not measured |" in text
    assert "The ledger's lag: not measured." in text
    assert "On RabbitMQ: not measured." in text
    assert "The async service: not measured." in text
    assert "| rabbitmq | 0:03 | 0:35 | not measured: no RabbitMQ |" in text


def test_the_page_tells_machine_day_form_and_how_long_the_run_took() -> None:
    text = render(BARE)
    assert "Measured 2026-01-02, quick form, in 12:34 minutes. Machine: cores 2." in text


def test_the_ledgers_lag_is_told_with_its_bound() -> None:
    text = render({**BARE, "ledger_lag": LAG})
    assert "The greatest lag was 1,234 events and 0.7 s" in text
    assert "bounded at 600,000 events" in text


def test_the_async_service_is_told_with_what_its_network_is() -> None:
    one = {"round_trip_ms": 4.2, "cpu_us": 55, "steady_per_s": 9_876, "steady_p99_ms": 98.7}
    awaited = {
        "jobs": 1000,
        "seconds": 30.0,
        "begin_commands": 1006,
        "commands_per_s": 46.5,
        "cpu_percent": 1.5,
    }
    service = {"calls": 1000, "one_way_ms": 2, "network": one, "loopback": one, "awaited": awaited}
    text = render({**BARE, "service": service})
    assert "| over the network | 9,876 | 98.7 | 4.2 | 55 |" in text
    assert "1,000 results awaited: 1,006 commands to begin, then 46.5 a second in 30 s" in text


def test_rates_are_told_as_multiples_of_taskyards_in_the_same_turns() -> None:
    rivals = {
        "rivals_noop": {"Taskyard": 500.0, "Dramatiq": 2000.0},
        "rivals_noop_times_taskyard": {"Taskyard": 1.0, "Dramatiq": 4.2},
    }
    assert "| Dramatiq | 2,000 | - | - | 4.20 |" in render({**BARE, **rivals})


def test_the_words_around_the_figures_stay() -> None:
    page = f"before\n{START}\nold\n{END}\nafter\n"
    text = put(page, BARE)
    assert text.startswith(f"before\n{START}\nMeasured")
    assert text.endswith(f"\n{END}\nafter\n")
    assert "old" not in text


def test_a_page_without_a_place_for_figures_is_refused() -> None:
    with pytest.raises(ValueError, match="one is missing; put it back"):
        put("no place", BARE)


def test_no_measured_figure_stands_outside_the_figures() -> None:
    head, _, rest = PAGE.read_text("utf-8").partition(START)
    words = head + rest.partition(END)[2]
    numbers = re.findall(r"\d[\d.,]* ?(?:%|ms\b|MiB|GiB|times|jobs)|\b\d+\.\d+\b|\d,\d{3}", words)
    assert set(numbers) == HOW_IT_IS_MEASURED


def test_the_screen_shows_a_report_without_figures(capsys: pytest.CaptureFixture[str]) -> None:
    show(BARE)
    assert "not measured" in capsys.readouterr().out
