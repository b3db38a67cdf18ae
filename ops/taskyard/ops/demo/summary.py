"""The demonstration's summary, read from ledger, letters and audit log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from rich.table import Table
from sqlalchemy import Engine

from taskyard import audit, ledger
from taskyard.control import letters
from taskyard.errors import NotFound
from taskyard.jobs.states import State
from taskyard.ops.cli.console import table
from taskyard.ops.cli.ids import short_id
from taskyard.ops.cli.time_text import lasted
from taskyard.ops.demo.demo_jobs import Cast

__all__ = ["Summary", "read_summary"]


@dataclass(frozen=True, slots=True)
class Summary:
    """What Postgres says of the jobs, the replayed letter and the operators' actions."""

    jobs: Sequence[dict[str, Any]]
    letter: dict[str, Any]
    audit: Sequence[dict[str, Any]]

    @property
    def complete(self) -> bool:
        """Return whether the mirror has caught up.

        All jobs completed, and the letter has its outcome.
        """
        jobs = all(job["state"] == State.COMPLETED for job in self.jobs)
        return jobs and self.letter["replay_outcome"] == "success" and len(self.audit) > 1

    def jobs_table(self) -> Table:
        """Return one row per job."""
        columns = ("job", "id", "queue", "state", "attempts", "replays", "time")
        rows = [
            (
                job["name"],
                short_id(job["job_id"]),
                job["queue"],
                job["state"],
                job["attempts"],
                job["generation"],
                lasted(job["admitted_at"], job["ended_at"]),
            )
            for job in self.jobs
        ]
        return table(columns, rows, title="Jobs (from the ledger)")

    def audit_table(self) -> Table:
        """Return one row per audit row."""
        columns = ("action", "operator", "outcome", "reason")
        rows = [[row[name] for name in _AUDIT_COLUMNS] for row in self.audit]
        return table(columns, rows, title="Audit log")

    def document(self) -> dict[str, Any]:
        """Return everything as plain data for JSON."""
        return {"jobs": self.jobs, "letter": self.letter, "audit": self.audit}


_AUDIT_COLUMNS = ("action_type", "operator_identity", "outcome", "reason")


def read_summary(engine: Engine, cast: Cast, letter_id: str, request_id: str) -> Summary:
    """Read the summary from Postgres."""
    with engine.connect() as connection:
        jobs = [_job(connection, role.name, role.handle.job_id) for role in cast.roles]
        rows = audit.rows_of(connection, UUID(request_id))
    return Summary(jobs, letters.show(engine, letter_id), rows)


def _job(connection: Any, name: str, job_id: str) -> dict[str, Any]:
    """Return the ledger's row, or a text that there is none yet."""
    try:
        return {"name": name, **ledger.job(connection, job_id)}
    except NotFound:
        return {"name": name, "job_id": job_id, "state": "unknown"}
