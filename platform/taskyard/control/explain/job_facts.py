"""What the servers say of one job, before any conclusion; a silent server is not an empty one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from taskyard.access import Identity
from taskyard.control.explain.cause_kinds import Server
from taskyard.inspection.message_after_worker_death import MessageState
from taskyard.inspection.queue_counts import QueueState
from taskyard.inspection.queue_position import QueuePlace
from taskyard.jobs.states import State
from taskyard.records import Member, Record
from taskyard.settings import Settings
from taskyard.switches import SwitchField, SwitchState

__all__ = ["Facts", "FromBroker", "FromPostgres", "FromRecords", "OpenRequest", "Where"]


class Where(StrEnum):
    """Where the message is that continues a job."""

    QUEUE = "queue"
    DELAYED = "delayed"
    LIVE_WORKER = "live worker"
    DEAD_WORKER = "dead worker"
    NOWHERE = "nowhere"
    ELSEWHERE = "elsewhere"
    UNSEEN = "unseen"
    RABBITMQ = "rabbitmq"


@dataclass(frozen=True, slots=True)
class FromRecords:
    """The record, the workers that live, and the switches; times in microseconds.

    `next_queue` is the queue of a retry's message, if that is another than the record's;
    `replaced` is whether another task takes the job's place first.
    """

    now_us: int
    record: Record
    workers: Sequence[Member] = ()
    switches: Mapping[SwitchField, SwitchState] = field(default_factory=dict)
    worker_lives: bool | None = None
    next_queue: str = ""
    replaced: bool = False
    app_queues: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class FromBroker:
    """Where the message is, and the queue in which it waits.

    `queue` is the queue that was found, by the settings' name. `held` is how many messages all
    workers of this broker hold, None if unknown. `death` says where the message of a dead worker's
    job is. `parked` are the switches that hold it in the delay store, as their field's text.
    `old` is the queue at RabbitMQ out of which a rerouted job was moved. `why` is why the place is
    unknown.
    """

    where: Where
    queue: str = ""
    state: QueueState | None = None
    place: QueuePlace | None = None
    due_us: int | None = None
    holder: str = ""
    held: int | None = None
    death: MessageState | None = None
    parked: Sequence[str] = ()
    old: QueueState | None = None
    stale: Sequence[tuple[int, int, int]] = ()
    why: str = ""

    @property
    def found(self) -> bool:
        """Whether the message was seen."""
        seen = (Where.DELAYED, Where.LIVE_WORKER, Where.DEAD_WORKER)
        in_queue = self.where is Where.QUEUE and (self.place is None or self.place.exact)
        return in_queue or self.where in seen


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A request of an operator that no relay has carried out yet; `why` is the last error."""

    request: uuid.UUID
    kind: str
    at: datetime
    operator: str = ""
    reason: str = ""
    why: str | None = None


@dataclass(frozen=True, slots=True)
class FromPostgres:
    """The ledger's row, the dead letter, open requests, and who did what to the job.

    `verbs` are operator and reason by request, `applied` those of the newest by action. `gate` is
    why the gate is closed. `old_queue` is the queue from which the job was moved last.
    """

    row: Mapping[str, Any] | None = None
    letter: Mapping[str, Any] | None = None
    why_not: str | None = None
    requests: Sequence[OpenRequest] = ()
    verbs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    applied: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    old_queue: str = ""
    gate: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it; a part is None if its server did not answer, which `outages` explain."""

    settings: Settings
    job_id: str
    outages: Mapping[Server, str]
    reader: Identity | None
    records: FromRecords | None = None
    broker: FromBroker | None = None
    postgres: FromPostgres | None = None

    @property
    def state(self) -> State | None:
        """The state by the record, else by the ledger; None if neither answers or knows it."""
        if self.records is not None and self.records.record.state is not State.NONE:
            return self.records.record.state
        row = None if self.postgres is None else self.postgres.row
        return None if row is None else State(row["state"])

    def fact(self, name: str) -> str:
        """Return a fact by the record, else by the ledger; empty if neither has it."""
        live = "" if self.records is None else self.records.record.fields.get(name, "")
        row = (self.postgres.row if self.postgres is not None else None) or {}
        stored = row.get({"type": "job_type"}.get(name, name))
        return live or ("" if stored is None else str(stored))

    @property
    def queue(self) -> str:
        """The queue whose workers run the job next; empty if it is unknown."""
        named = "" if self.records is None else self.records.next_queue
        found = "" if self.broker is None else self.broker.queue
        return named or self.fact("queue") or found
