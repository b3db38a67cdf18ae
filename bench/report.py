"""The tables on screen."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.promises import FIGURES, kept
from bench.suite import minutes

__all__ = ["show"]

_KEPT: Final = {True: "yes", False: "NO", None: ""}
# Figure names are looked for in bench.json and must not be cut.
_LEAST_WIDTH: Final = 110
_MISSING: Final = "not measured"


def show(report: dict[str, Any]) -> None:
    """Print figures, rates, ledger and what the run took."""
    console = Console()
    console.width = max(console.width, _LEAST_WIDTH)
    console.print(_figures(report))
    if "noop" in report or "rivals_noop" in report or "rabbitmq_noop" in report:
        console.print(_rates(report))
    if "ledger_lag" in report:
        console.print(_ledger(report["ledger_lag"]))
    console.print(_suite(report["course"]))


def _figures(report: dict[str, Any]) -> Table:
    table = Table("figure", "found", "turns", "promised", "kept", title="Taskyard")
    for key, promise in FIGURES.items():
        found = report.get(key)
        shown = _MISSING if found is None else f"{found:g}"
        table.add_row(key, shown, _range(report, key), str(promise), _KEPT[kept(key, report)])
    return table


def _range(report: dict[str, Any], key: str) -> str:
    turns = report.get(f"{key}_turns")
    return "" if turns is None else f"{turns['lowest']:g} - {turns['highest']:g}"


def _rates(report: dict[str, Any]) -> Table:
    table = Table("library", "no-op/s", "5 ms I/O/s", "enqueue/s", title="Medians, 2 processes")
    for kind in ("", "rabbitmq_", "rivals_"):
        columns = [report.get(f"{kind}{name}", {}) for name in ("noop", "io_5ms", "enqueue")]
        for name in columns[0]:
            table.add_row(name, *(_cell(column, name) for column in columns))
        table.add_section()
    return table


def _cell(column: dict[str, float], name: str) -> str:
    return f"{column[name]:,.0f}" if name in column else "-"


def _ledger(lag: dict[str, Any]) -> Table:
    table = Table("ledger beside a worker at full speed", "")
    for name, value in lag.items():
        table.add_row(name, f"{value:,g}")
    return table


def _suite(suite: dict[str, Any]) -> Table:
    table = Table("part", "took", "expected", "", title=f"The run: {minutes(suite['seconds'])} min")
    for each in suite["parts"]:
        took, expected = minutes(each["seconds"]), minutes(each["expected_s"])
        outcome = f"{each['outcome']}{each['why'] and ': '}{each['why']}"
        table.add_row(each["part"], took, expected, outcome)
    return table
