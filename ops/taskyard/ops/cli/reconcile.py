"""`taskyard reconcile`: what disagrees, what can be repaired, and the gate after a restore."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final

import typer
from sqlalchemy import Engine

from taskyard import database
from taskyard.access import Identity
from taskyard.control import identify
from taskyard.install import AnyQueuePublisher
from taskyard.ops.cli.console import print_json, put, say, table, with_sentences
from taskyard.ops.cli.ids import short_id
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.target_servers import find_target
from taskyard.reconcile import EXAMPLES, MEANINGS, Kind, Reconciler, Report
from taskyard.reconcile import accept as accept_restore
from taskyard.records import Records
from taskyard.store import connect, reachable

__all__ = ["command"]

_DRIFT: Final = 1


def command(
    repair: Annotated[
        bool, typer.Option("--repair", help="Repair what can be repaired without harm.")
    ] = False,
    accept: Annotated[
        bool, typer.Option("--accept", help="After a restore: repair, then open the gate.")
    ] = False,
    reason: Annotated[
        str | None, typer.Option(help="With --accept: what was restored; kept in the audit log.")
    ] = None,
    budget: Annotated[float, typer.Option(min=1, help="How many seconds it may take.")] = 30.0,
    examples: Annotated[
        int, typer.Option(min=1, help="With --json: how many of each kind are named.")
    ] = EXAMPLES,
    json: Json = False,
) -> None:
    """Compare broker, records and ledger; repair what is safe.

    Without an option it changes nothing. Exit code 1 if something disagrees that was not repaired,
    or if the gate is closed. `--accept` needs an identity, as every operator's action does.
    """
    settings = find_target(quiet=json).settings
    url = settings.need_database_url()
    with database.opened(url, application_name="taskyard reconcile") as engine:
        records = Records(connect(settings.need_redis_url()), settings)
        reconciler = Reconciler(settings, engine, records, AnyQueuePublisher(settings, records))
        accepted = _Accept(identify(engine, settings), reason) if accept else None
        with closing(reconciler), reachable(settings.need_redis_url()):
            run = partial(reconciler.run, repair=repair, most_examples=examples)
            report = _look(reconciler, engine, accepted, run, budget)
    if json:
        print_json(report.document())
    else:
        _print(report)
    if report.gate is not None or report.total > report.repaired.total():
        raise typer.Exit(_DRIFT)


@dataclass(frozen=True, slots=True)
class _Accept:
    """The identity that opens the gate, and the reason."""

    identity: Identity
    reason: str | None


def _look(
    reconciler: Reconciler,
    engine: Engine,
    accepted: _Accept | None,
    run: Callable[..., Report],
    budget_s: float,
) -> Report:
    """Compare; errors of the broker are named there, and other Redis errors are the records'."""
    if accepted is None:
        return run(budget_s=budget_s)
    return accept_restore(
        reconciler,
        engine,
        accepted.identity,
        accepted.reason,
        require_reason="strict",  # TASKYARD_REQUIRE_REASON is for programs that cannot give one
        budget_s=budget_s,
    )


def _print(report: Report) -> None:
    looked = ", ".join(f"{count} {name}" for name, count in report.looked_at.items())
    say(f"compared {looked} in {report.took_s:.1f} s")
    rows = [
        (
            kind.value,
            count,
            report.repaired[kind] if report.repairing else "-",
            _meaning(report, kind),
        )
        for kind, count in sorted(report.drift.items())
    ]
    if rows:
        put(table(("drift", "found", "repaired", "meaning"), rows))
    _print_continuing(report)
    for name, count in report.suspected.items():
        say(f"suspected: {count} {name}")
    for line in report.unseen:
        say(f"not checked: {line}")
    if not report.complete:
        say("incomplete: the time budget ended; give more with --budget", "yellow")
    _print_verdict(report)


def _print_continuing(report: Report) -> None:
    if not report.continuing_total:
        return
    put(
        with_sentences(
            ("job of a dead worker", "continues without a repair"),
            [(short_id(job.job_id), job.detail) for job in report.continuing],
        )
    )
    more = report.continuing_total - len(report.continuing)
    if more:
        say(f"and {more} more; name them all with --examples and --json")


def _meaning(report: Report, kind: Kind) -> str:
    example = report.examples[kind][0]
    detail = report.details.get(example)
    return f"{MEANINGS[kind].text}, e.g. {example}" + (f": {detail}" if detail else "")


def _print_verdict(report: Report) -> None:
    if report.gate is not None:
        say(f"the gate is closed: {report.gate}", "red")
        say("operators' requests wait. Open the gate: taskyard reconcile --accept --reason '...'")
    elif not report.total:
        say("nothing disagrees", "green")
    elif not report.repairing and any(MEANINGS[kind].repair for kind in report.drift):
        say("nothing was changed; repair with: taskyard reconcile --repair")
