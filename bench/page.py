"""`python -m bench.page`: put the figures of build/bench.json into docs/benchmarks.md."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from bench.processes import ROOT
from bench.promises import FIGURES, kept, not_kept
from bench.suite import minutes

__all__ = ["END", "START", "put", "render"]

PAGE: Final = ROOT / "docs" / "benchmarks.md"
REPORT: Final = ROOT / "build" / "bench.json"
START, END = "<!-- figures -->", "<!-- end of figures -->"
_KEPT: Final = {True: "yes", False: "**no**", None: ""}


def put(page: str, report: dict[str, Any]) -> str:
    """The page with these figures; raises ValueError if it has no place for them."""
    head, start, rest = page.partition(START)
    _, end, tail = rest.partition(END)
    if not start or not end:
        raise ValueError(f"expected {START!r} and {END!r} in the page, one is missing; put it back")
    return f"{head}{START}\n{render(report)}\n{END}{tail}"


def render(report: dict[str, Any]) -> str:
    """Everything that a run tells, in Markdown; what was not measured says so."""
    return "\n\n".join(text for block in _BLOCKS if (text := block(report)))


def _head(report: dict[str, Any]) -> str:
    facts = "; ".join(f"{name} {value}" for name, value in report["machine"].items())
    took = minutes(report["course"]["seconds"])
    return (
        f"Measured {report['at'][:10]}, {report['form']} form, in {took} minutes. Machine: {facts}."
    )


def _figures(report: dict[str, Any]) -> str:
    lines = [
        "| figure | found | lowest turn | middle half | highest turn | turns | promised | kept |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, promise in FIGURES.items():
        found = report.get(key)
        shown = "not measured" if found is None else f"{found:g}"
        turns = _turns(report.get(f"{key}_turns"))
        lines.append(f"| `{key}` | {shown} | {turns} | {promise} | {_KEPT[kept(key, report)]} |")
    return "\n".join(lines)


def _turns(turns: dict[str, float] | None) -> str:
    if turns is None:
        return " | ".join([""] * 4)
    middle = f"{turns['lower_quartile']:g} - {turns['upper_quartile']:g}"
    return f"{turns['lowest']:g} | {middle} | {turns['highest']:g} | {turns['turns']}"


def _reading(report: dict[str, Any]) -> str:
    missed = [f"`{key}` ({report[key]:g}, promised {FIGURES[key]})" for key in not_kept(report)]
    if not missed:
        return "Every promise that was measured was kept in this run."
    return f"Not kept in this run: {', '.join(missed)}."


def _rates(report: dict[str, Any]) -> str:
    lines = [
        "| library | no-op jobs/s | 5 ms I/O jobs/s | enqueue/s | no-op, times Taskyard |",
        "| --- | --- | --- | --- | --- |",
        *_rows(report, ""),
        "| *in turns of their own:* | | | | |",
        *_rows(report, "rivals_"),
    ]
    return "\n".join(lines)


def _rows(report: dict[str, Any], kind: str) -> list[str]:
    noop, io, enqueue = (report.get(f"{kind}{name}", {}) for name in ("noop", "io_5ms", "enqueue"))
    times = report.get(f"{kind}noop_times_taskyard", {})
    found = []
    for name in noop:
        cells = (_cell(column, name) for column in (noop, io, enqueue))
        found.append(f"| {name} | {' | '.join(cells)} | {times[name]:.2f} |")
    return found


def _cell(column: dict[str, float], name: str) -> str:
    return f"{column[name]:,.0f}" if name in column else "-"


def _rabbitmq(report: dict[str, Any]) -> str:
    if "rabbitmq_noop" not in report:
        return "On RabbitMQ: not measured."
    lines = [
        "| on RabbitMQ | no-op jobs/s | enqueue/s | whole worker, CPU ms a job |",
        "| --- | --- | --- | --- |",
    ]
    for name, rate in report["rabbitmq_noop"].items():
        enqueue, cpu_ms = report["rabbitmq_enqueue"][name], report["rabbitmq_cpu_ms"][name]
        lines.append(f"| {name} | {rate:,.0f} | {enqueue:,.0f} | {cpu_ms:.2f} |")
    many = report["rabbitmq_enqueue_many"]
    said = f"RabbitMQ {report['rabbitmq_version']}. `enqueue_many` reached {many:,} jobs/s there."
    return "\n".join([*lines, "", said])


def _costs(report: dict[str, Any]) -> str:
    if "main_cpu_ms" not in report:
        return ""
    lines = [
        "| library | main process, CPU ms a job | children, CPU ms a job | memory (PSS), MiB |",
        "| --- | --- | --- | --- |",
    ]
    memory = report.get("memory_mib", {})
    for name, main in report["main_cpu_ms"].items():
        children = report["children_cpu_ms"][name]
        lines.append(f"| {name} | {main:.2f} | {children:.2f} | {_cell(memory, name)} |")
    return "\n".join(lines)


def _others(report: dict[str, Any]) -> str:
    said = []
    if "redis_round_trips_per_job" in report:
        said.append(
            f"Commands a job sends to Redis: {report['redis_round_trips_per_job']:g} by the child "
            f"and {report['redis_commands_per_job_main']:g} by the main process; Celery's "
            f"{report['redis_commands_per_job_celery']:g} and "
            f"{report['redis_commands_per_job_main_celery']:g}."
        )
    if "enqueue_many" in report:
        said.append(f"`enqueue_many` reached {report['enqueue_many']:,} jobs/s.")
    if "backlog" in report:
        backlog = report["backlog"]
        said.append(
            f"The long backlog had {backlog['largest']:,} jobs: {backlog['jobs_per_s_large']:,} "
            f"jobs/s there, {backlog['jobs_per_s_small']:,} at 1,000."
        )
    if "pickup_ms_median" in report:
        said.append(
            f"Pick-up by an idle worker: median {report['pickup_ms_median']:g} ms; an idle Celery "
            f"worker needs {report['idle_cpu_percent_celery']:g} % of a core."
        )
    if "mirror_letters" in report:
        said.append(f"The mirror wrote {report['mirror_letters']:,} letters.")
    return " ".join(said)


def _service(report: dict[str, Any]) -> str:
    found = report.get("service")
    if found is None:
        return "The async service: not measured."
    awaited, calls = found["awaited"], found["calls"]
    columns = "calls/s | p99, ms | round trip, ms | CPU of the service, µs a call"
    lines = [
        f"| {calls:,} tasks that enqueue one after the other | {columns} |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, title in (("network", "over the network"), ("loopback", "on the same machine")):
        one = found[name]
        lines.append(
            f"| {title} | {one['steady_per_s']:,} | {one['steady_p99_ms']:,} | "
            f"{one['round_trip_ms']:g} | {one['cpu_us']:,} |"
        )
    said = (
        f"{awaited['jobs']:,} results awaited: {awaited['begin_commands']:,} commands to begin, "
        f"then {awaited['commands_per_s']:g} a second in {awaited['seconds']:.0f} s, and "
        f"{awaited['cpu_percent']:g} % of a core."
    )
    return "\n".join([*lines, "", said])


def _ledger(report: dict[str, Any]) -> str:
    lag = report.get("ledger_lag")
    if lag is None:
        return "The ledger's lag: not measured."
    return (
        f"The ledger, the mirror running: {lag['jobs']:,} jobs enqueued at "
        f"{lag['enqueued_per_s']:,.0f} a second left {lag['burst_events']:,} events to write, "
        f"which took {lag['burst_empty_after_s']:.1f} s. Then a worker at full speed beside it: "
        f"{lag['jobs_per_s']:,.0f} a second, which is {lag['events_per_s']:,.0f} events a second. "
        f"The greatest lag was {lag['greatest_events']:,} events and {lag['greatest_s']:g} s; in "
        f"the second half it grew by {lag['growth_per_s']:,.0f} events a second; "
        f"{lag['empty_after_s']:.1f} s after the last job nothing was missing in Postgres. "
        f"{lag['gaps']:,} events were left out, {lag['jobs_missing']:,} jobs are missing. The lag "
        f"is bounded at {lag['bound_events']:,} events: there the stream thins to failures and "
        "counts what it leaves out."
    )


def _steps(report: dict[str, Any]) -> str:
    found = report.get("where_time_goes")
    if found is None:
        return "Where the time of one job goes: not measured."
    tables = []
    for process, title in (("main", "main process"), ("child", "child")):
        lines = [f"| where the time of one job goes: {title} | share |", "| --- | --- |"]
        lines += [f"| {step} | {percent:.0f} % |" for step, percent in found[process].items()]
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _suite(report: dict[str, Any]) -> str:
    lines = ["| part of the run | took | expected | |", "| --- | --- | --- | --- |"]
    for each in report["course"]["parts"]:
        took, expected = minutes(each["seconds"]), minutes(each["expected_s"])
        outcome = f"{each['outcome']}{each['why'] and ': '}{each['why']}"
        lines.append(f"| {each['part']} | {took} | {expected} | {outcome} |")
    return "\n".join(lines)


def _how(report: dict[str, Any]) -> str:
    lines = [f"- **{name}**: {note}" for name, note in report["settings"].items()]
    return "\n".join(lines)


_BLOCKS: Final = (
    _head,
    _figures,
    _reading,
    _rates,
    _rabbitmq,
    _costs,
    _others,
    _service,
    _ledger,
    _steps,
    _suite,
    _how,
)


def main() -> int:
    """Write the page; the words around the figures stay."""
    report = json.loads(REPORT.read_text("utf-8"))
    PAGE.write_text(put(PAGE.read_text("utf-8"), report), "utf-8")
    sys.stdout.write(f"{Path(PAGE).relative_to(ROOT)} has the figures of {report['at']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
