"""A job as an operator sees it when a verb is requested: from its record, else from the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from redis.exceptions import RedisError
from sqlalchemy import Connection

from taskyard import ledger
from taskyard.errors import NotFound
from taskyard.jobs.states import State
from taskyard.records import Record
from taskyard.settings import Settings

__all__ = ["JobSeen", "ReadsRecords", "Source", "look_at"]


class ReadsRecords(Protocol):
    """Reads the record of a job; `taskyard.records.Records` does."""

    @property
    def settings(self) -> Settings:
        """Return the settings of the namespace."""

    def read(self, job_id: str) -> Record:
        """Return the record, in state `none` if there is none; raises redis-py's errors."""


class Source(StrEnum):
    """Where the facts about a job come from."""

    RECORD = "record"
    LEDGER = "ledger"
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class JobSeen:
    """A job at the moment when an operator acts; a field that is unknown is None or empty.

    A job that neither Redis nor the ledger knows (`NOWHERE`) may still wait in a queue of an
    installed app.
    """

    job_id: str
    state: State = State.NONE
    epoch: int | None = None
    generation: int | None = None
    version: int | None = None
    job_type: str = ""
    queue: str = ""
    domain: str | None = None
    source: Source = Source.NOWHERE

    def detail(self) -> dict[str, object]:
        """Return the facts that the audit log keeps."""
        return {
            "state": self.state.value,
            "epoch": self.epoch,
            "generation": self.generation,
            "version": self.version,
            "queue": self.queue,
            "seen_in": self.source.value,
        }


def look_at(connection: Connection, records: ReadsRecords, job_id: str) -> JobSeen:
    """Return what is known of a job.

    The ledger is a little late, so it is asked only where Redis does not answer or has no record.
    """
    try:
        record = records.read(job_id)
    except RedisError:
        record = None
    if record is not None and record.state is not State.NONE:
        return _from_record(connection, record)
    row = _row(connection, job_id)
    return JobSeen(job_id) if row is None else _from_row(row)


def _from_record(connection: Connection, record: Record) -> JobSeen:
    queue, domain = record.queue, record.fields.get("domain")
    if not queue or domain is None:
        # The record of an ended job keeps few fields, and an old record has no domain. The ledger
        # has both.
        row = _row(connection, record.job_id) or {}
        if row.get("epoch") != record.epoch:
            row = {}  # it is of another life of the id, whose queue and domain say nothing of this
        queue, domain = queue or row.get("queue") or "", domain or row.get("domain")
    return JobSeen(
        job_id=record.job_id,
        state=record.state,
        epoch=record.epoch,
        generation=record.generation,
        version=record.number("version"),
        job_type=record.job_type,
        queue=queue,
        domain=domain,
        source=Source.RECORD,
    )


def _from_row(row: dict[str, Any]) -> JobSeen:
    return JobSeen(
        job_id=row["job_id"],
        state=State(row["state"]),
        epoch=row["epoch"],
        generation=row["generation"],
        job_type=row["job_type"] or "",
        queue=row["queue"] or "",
        domain=row["domain"],
        source=Source.LEDGER,
    )


def _row(connection: Connection, job_id: str) -> dict[str, Any] | None:
    try:
        return ledger.job(connection, job_id)
    except NotFound:
        return None
