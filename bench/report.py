"""The table on screen, and what is missing from it."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console
from rich.table import Table

__all__ = ["TARGETS", "promise", "show"]

# Key -> (at least, at most), as promised.
TARGETS: Final[dict[str, tuple[float | None, float | None]]] = {
    "throughput_vs_celery": (1.4, None),
    "throughput_vs_naive_lock": (2.0, None),
    "enqueue_vs_celery": (1.0, None),
    "enqueue_many_vs_celery": (8, None),
    "worker_memory_vs_celery": (None, 1.10),
    "redis_round_trips_per_job": (1.95, 2.05),
    "backlog_flatness": (0.90, None),
    "mirror_rows_per_s": (5000, None),
    "mirror_memory_growth": (None, 1.10),
    "pickup_ms_p99": (None, 20),
    "idle_cpu_percent": (None, 1),
}
_NOT_MEASURED: Final = (
    "RabbitMQ: not measured by this version of the bench; the figures are those of Redis/Valkey."
)


def promise(key: str) -> str:
    """What a figure must keep to, in words."""
    least, most = TARGETS[key]
    words = [f"at least {least:g}"] if least is not None else []
    words += [f"at most {most:g}"] if most is not None else []
    return ", ".join(words)


def show(figures: dict[str, Any]) -> None:
    """Print targets and rates."""
    console = Console()
    console.print(_targets(figures))
    console.print(_rates(figures))
    console.print(_NOT_MEASURED)


def _targets(figures: dict[str, Any]) -> Table:
    table = Table("figure", "found", "promised", "", title="Taskyard")
    for key, (least, most) in TARGETS.items():
        found = figures[key]
        kept = (least is None or found >= least) and (most is None or found <= most)
        table.add_row(key, f"{found:g}", promise(key), "yes" if kept else "NO")
    return table


def _rates(figures: dict[str, Any]) -> Table:
    table = Table("library", "no-op/s", "5 ms I/O/s", "enqueue/s", title="Medians, 2 processes")
    beside = {"Celery", "Celery + lock", "Taskyard"}
    for name in sorted(beside):
        columns = (figures["noop"], figures["io_5ms"], figures["enqueue"])
        table.add_row(name, *(_cell(column, name) for column in columns))
    for name in figures["rivals_noop"]:
        columns = (figures["rivals_noop"], figures["rivals_io_5ms"], figures["rivals_enqueue"])
        if name not in beside:
            table.add_row(name, *(_cell(column, name) for column in columns))
    return table


def _cell(column: dict[str, float], name: str) -> str:
    return f"{column[name]:,.0f}" if name in column else "-"
