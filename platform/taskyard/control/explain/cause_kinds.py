"""The kinds of causes in the order in which they block a job, and what the table says of each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["CauseKind", "Meaning", "Server"]


class Server(StrEnum):
    """A server that knows a part of the answer."""

    RECORDS = "records"
    BROKER = "broker"
    POSTGRES = "postgres"


class CauseKind(StrEnum):
    """A cause; in JSON it is `kind`."""

    # The job has ended.
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    ABORTED = "aborted"
    FAILED = "failed"
    # It failed for good.
    LETTER = "letter"
    LETTER_NEEDS_PAYLOAD = "letter_needs_payload"
    LETTER_NEEDS_FORCE = "letter_needs_force"
    LETTER_NOT_REPLAYABLE = "letter_not_replayable"
    LETTER_NOT_STORED = "letter_not_stored"
    LETTER_UNREAD = "letter_unread"
    # A part of the answer is missing.
    RECORDS_SILENT = "records_silent"
    BROKER_SILENT = "broker_silent"
    # An attempt runs, or ran in a worker that is dead.
    CANCEL_REQUESTED = "cancel_requested"
    RUNNING = "running"
    WORKER_DEAD = "worker_dead"
    LEASE_EXPIRED = "lease_expired"
    # It may not run now.
    GATE_CLOSED = "gate_closed"
    PAUSED = "paused"
    KILLED = "killed"
    HELD_AS_NEW = "held_as_new"
    REQUEST_OPEN = "request_open"
    # No message will bring it to a worker, or not yet.
    UNPUBLISHED = "unpublished"
    MESSAGE_MISSING = "message_missing"
    MESSAGE_MOVES = "message_moves"
    MESSAGE_ELSEWHERE = "message_elsewhere"
    MESSAGE_UNSEEN = "message_unseen"
    HELD_BY_DEAD = "held_by_dead"
    REROUTED = "rerouted"
    OLD_QUEUE_UNREAD = "old_queue_unread"
    REPLACED = "replaced"
    RETRY_AT = "retry_at"
    SCHEDULED = "scheduled"
    PARKED = "parked"
    NO_CONSUMER = "no_consumer"
    CONSUMERS_UNKNOWN = "consumers_unknown"
    PREFETCHED = "prefetched"
    QUEUED = "queued"
    QUEUED_BEHIND_AT_LEAST = "queued_behind_at_least"
    QUEUED_AT_RABBITMQ = "queued_at_rabbitmq"
    CONSUMERS_BUSY = "consumers_busy"
    STALE_MESSAGE = "stale_message"
    # Its record is not there.
    NO_RECORD_YET = "no_record_yet"
    RECORD_LOST = "record_lost"
    LEDGER_ONLY = "ledger_only"
    UNKNOWN_ID = "unknown_id"
    POSTGRES_SILENT = "postgres_silent"


@dataclass(frozen=True, slots=True)
class Meaning:
    """One cause: its text, which servers must answer to know it, and what moves the job.

    `{names}` in texts and commands are facts. `commands` move the job, the safest first; without
    any, `waits` says why none is needed or possible. `see` shows more and changes nothing.
    """

    text: str
    needs: frozenset[Server]
    commands: tuple[str, ...] = ()
    waits: str = ""
    see: str = ""
