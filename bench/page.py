"""`python -m bench.page`: put the figures of build/bench.json into docs/benchmarks.md."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from bench.processes import ROOT
from bench.report import TARGETS, promise

__all__ = ["render"]

PAGE: Final = ROOT / "docs" / "benchmarks.md"
FIGURES: Final = ROOT / "build" / "bench.json"
_START, _END = "<!-- figures -->", "<!-- end of figures -->"


def render(report: dict[str, Any]) -> str:
    """The tables in Markdown."""
    parts = [_machine(report), _promised(report), _rates(report), _costs(report), _how(report)]
    return "\n\n".join(parts)


def _machine(report: dict[str, Any]) -> str:
    facts = "; ".join(f"{name} {value}" for name, value in report["machine"].items())
    return f"Measured {report['at'][:10]}, {report['form']} form. Machine: {facts}."


def _promised(report: dict[str, Any]) -> str:
    lines = ["| figure | found | promised |", "| --- | --- | --- |"]
    lines += [f"| `{key}` | {report[key]:g} | {promise(key)} |" for key in TARGETS]
    return "\n".join(lines)


def _rates(report: dict[str, Any]) -> str:
    lines = [
        "| library | no-op jobs/s | 5 ms I/O jobs/s | enqueue/s |",
        "| --- | --- | --- | --- |",
    ]
    for name in ("Taskyard", "Celery", "Celery + lock"):
        row = (report["noop"], report["io_5ms"], report["enqueue"])
        lines.append(_row(name, row))
    lines.append("| *in turns of their own:* | | | |")
    for name in report["rivals_noop"]:
        row = (report["rivals_noop"], report["rivals_io_5ms"], report["rivals_enqueue"])
        lines.append(_row(name, row))
    return "\n".join(lines)


def _row(name: str, columns: tuple[dict[str, float], ...]) -> str:
    cells = (f"{column[name]:,.0f}" if name in column else "-" for column in columns)
    return f"| {name} | {' | '.join(cells)} |"


def _costs(report: dict[str, Any]) -> str:
    lines = [
        "| library | main process, CPU ms a job | children, CPU ms a job | memory (PSS), MiB |",
        "| --- | --- | --- | --- |",
    ]
    for name, main in report["main_cpu_ms"].items():
        children, memory = report["children_cpu_ms"][name], report["memory_mib"][name]
        lines.append(f"| {name} | {main:.2f} | {children:.2f} | {memory:.0f} |")
    backlog = report["backlog"]
    lines.append("")
    lines.append(
        f"Commands a job sends to Redis: {report['redis_round_trips_per_job']:g} by the child and "
        f"{report['redis_commands_per_job_main']:g} by the main process; Celery's "
        f"{report['redis_commands_per_job_celery']:g} and "
        f"{report['redis_commands_per_job_main_celery']:g}. `enqueue_many` reached "
        f"{report['enqueue_many']:,} jobs/s. The long backlog had {backlog['largest']:,} jobs: "
        f"{backlog['jobs_per_s_large']:,.0f} jobs/s there, {backlog['jobs_per_s_small']:,.0f} at "
        f"1,000. Payloads of 64 KiB: {report['payload_64kib_vs_celery']:g} times Celery. Pick-up "
        f"by an idle worker: median {report['pickup_ms_median']:g} ms. The mirror wrote "
        f"{report['mirror_letters']:,} letters."
    )
    return "\n".join(lines)


def _how(report: dict[str, Any]) -> str:
    lines = [f"- **{name}**: {note}" for name, note in report["settings"].items()]
    return "\n".join(lines)


def main() -> int:
    """Write the page; the words around the figures stay."""
    report = json.loads(FIGURES.read_text("utf-8"))
    page = Path(PAGE).read_text("utf-8")
    head, _, rest = page.partition(_START)
    _, _, tail = rest.partition(_END)
    PAGE.write_text(f"{head}{_START}\n{render(report)}\n{_END}{tail}", "utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)} has the figures of {report['at']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
