"""The jobs that a verb is for: named ones, or those of the ledger that match filters."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import typer
from rich.prompt import Prompt
from sqlalchemy import Engine

from taskyard import ledger
from taskyard.access import Identity
from taskyard.clock import SYSTEM_CLOCK
from taskyard.errors import NotFound
from taskyard.jobs.states import State
from taskyard.ops.cli.console import err, note, print_json, put, say, table
from taskyard.ops.cli.ids import read_ids, short_id
from taskyard.ops.cli.jobs.find_job_by_id import find_job
from taskyard.ops.cli.options import moment_of
from taskyard.ops.cli.time_text import age
from taskyard.records import Records
from taskyard.settings import Settings

__all__ = ["LIMIT", "Choice", "choose", "confirm", "show_preview"]

LIMIT: Final = 1000
"""As many as the ledger gives at once; a person cannot check more of them in a preview."""

_SHOWN: Final = 20
_UUID_LENGTH: Final = 36


@dataclass(frozen=True, slots=True)
class Choice:
    """How the operator chooses jobs: by ids, or by filters; `limit` is for filters."""

    ids: Sequence[str]
    state: State | None = None
    job_type: str | None = None
    queue: str | None = None
    domain: str | None = None
    since: str | None = None
    limit: int = LIMIT

    @property
    def filters(self) -> bool:
        """Whether the jobs are chosen by filters, so that a person must confirm their number."""
        return replace(self, ids=(), limit=LIMIT) != Choice(())

    def check(self) -> None:
        """Raise `typer.BadParameter` unless the jobs are chosen in one of the two ways."""
        if self.filters == bool(self.ids):
            raise typer.BadParameter(
                "expected either ids, or filters (--state, --type, --queue, --domain, --since), "
                f"got {'both' if self.ids else 'neither'}. To see jobs: taskyard jobs list",
                param_hint="ID...",
            )


def choose(
    settings: Settings, engine: Engine, records: Records, choice: Choice, reader: Identity | None
) -> Sequence[Mapping[str, Any]]:
    """Return id, type, queue, state and time of the last change of each job.

    Filters find jobs that have not ended. Raises `NotFound`, `Refused` and `typer.BadParameter`.
    """
    choice.check()
    if not choice.filters:
        return _named(settings, records, read_ids(choice.ids))
    wanted = ledger.Wanted(
        state=None if choice.state is None else choice.state.value,
        job_type=choice.job_type,
        queue=choice.queue,
        domain=choice.domain,
        since=moment_of(choice.since, SYSTEM_CLOCK.now()),
    )
    with engine.connect() as connection:
        rows = ledger.newest(connection, wanted, choice.limit, identity=reader, live=True)
    if not rows:
        raise NotFound("no live job matches. To see the jobs of all states: taskyard jobs list")
    if len(rows) == choice.limit:
        note(f"these are the newest {choice.limit}; repeat the command for the others")
    return rows


def _named(settings: Settings, records: Records, names: Sequence[str]) -> list[Mapping[str, Any]]:
    if len(names) > LIMIT:
        raise typer.BadParameter(
            f"expected at most {LIMIT} jobs at once, got {len(names)}", param_hint="ID..."
        )
    return [_found(settings, records, name) for name in names]


def _found(settings: Settings, records: Records, name: str) -> Mapping[str, Any]:
    """Return the job; a whole id without a record may be of an installed app's queue."""
    try:
        job_id = find_job(settings, records, name)
    except NotFound:
        if len(name) != _UUID_LENGTH:
            raise
        note(f"job {name} has no record; what you do now applies when a worker takes its message")
        return {"job_id": name, "job_type": "", "queue": "", "state": State.NONE.value}
    record = records.read(job_id)
    facts = {"job_type": record.job_type, "queue": record.queue, "state": record.state.value}
    return {"job_id": job_id, **facts}


def show_preview(jobs: Sequence[Mapping[str, Any]], *, json: bool) -> None:
    """Show which jobs are chosen: the first of them, and how many there are in each state."""
    counts = Counter(str(job["state"]) for job in jobs)
    if json:
        chosen = [{name: job[name] for name in _COLUMNS} for job in jobs]
        print_json({"count": len(jobs), "states": dict(counts), "jobs": chosen})
        return
    now = SYSTEM_CLOCK.now()
    rows = [
        (
            short_id(job["job_id"]),
            job["job_type"],
            job["queue"],
            job["state"],
            age(job["updated_at"], now) if "updated_at" in job else "",
        )
        for job in jobs[:_SHOWN]
    ]
    put(table(("id", "type", "queue", "state", "changed"), rows))
    if len(jobs) > _SHOWN:
        say(f"and {len(jobs) - _SHOWN} more")
    states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    say(f"{_jobs(len(jobs))}: {states}")


_COLUMNS: Final = ("job_id", "job_type", "queue", "state")


def confirm(count: int, given: int | None, verb: str) -> None:
    """Raise `typer.BadParameter` unless the operator names the number of jobs.

    `given` is that of `--confirm`. Without it a person at a terminal is asked.
    """
    if given is None and sys.stdin.isatty():
        answer = Prompt.ask(f"Type {count} to {verb} {_jobs(count)}", console=err())
        given = int(answer) if answer.strip().isdecimal() else -1
    if given is None:
        raise typer.BadParameter(
            f"the filters match {_jobs(count)}. Look at them with --dry-run, then repeat the "
            f"command with --confirm {count}",
            param_hint="--confirm",
        )
    if given != count:
        raise typer.BadParameter(
            f"the filters match {_jobs(count)} and not {given}, so nothing was done. Look at them "
            "again with --dry-run",
            param_hint="--confirm",
        )


def _jobs(count: int) -> str:
    return f"{count} job" + "s" * (count != 1)
