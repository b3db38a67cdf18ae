"""Every kind of inconsistency: what it means, and what repairing it does."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["MEANINGS", "Kind", "Meaning"]


class Kind(StrEnum):
    """A kind of disagreement between the stores."""

    UNPUBLISHED = "unpublished"
    STRANDED_ACCEPTED = "stranded_accepted"
    STRANDED_RUNNING = "stranded_running"
    STRANDED_RETRYING = "stranded_retrying"
    HELD_BY_DEAD_WORKER = "held_by_dead_worker"
    BEGUN_BY_DEAD_WORKER = "begun_by_dead_worker"
    LETTER_MISSING = "letter_missing"
    LETTER_WITHOUT_RECORD = "letter_without_record"
    LETTER_BEHIND = "letter_behind"
    REPLAY_APPLIED = "replay_applied"
    REPLAY_NOT_APPLIED = "replay_not_applied"
    REPLAY_UNKNOWN = "replay_unknown"
    LEDGER_BEHIND = "ledger_behind"
    JOB_FORGOTTEN = "job_forgotten"
    DELAYED_WITHOUT_MESSAGE = "delayed_without_message"
    DELAYED_WITHOUT_TIME = "delayed_without_time"
    UNACKED_WITHOUT_MESSAGE = "unacked_without_message"
    UNACKED_WITHOUT_TIME = "unacked_without_time"
    COPY_UNREADABLE = "copy_unreadable"


@dataclass(frozen=True, slots=True)
class Meaning:
    """The texts of a kind; `repair` is empty if only invented data could repair it."""

    text: str
    repair: str


_REBUILT: Final = "published again from the stored copy; without a copy only reported"

MEANINGS: Final[dict[Kind, Meaning]] = {
    Kind.UNPUBLISHED: Meaning("accepted, and the broker never confirmed its message", _REBUILT),
    Kind.STRANDED_ACCEPTED: Meaning("accepted, and its message was not found anywhere", _REBUILT),
    Kind.STRANDED_RUNNING: Meaning(
        "running with an expired lease, and its message was not found anywhere", _REBUILT
    ),
    Kind.STRANDED_RETRYING: Meaning(
        "its retry is overdue, and its message was not found anywhere", _REBUILT
    ),
    Kind.HELD_BY_DEAD_WORKER: Meaning(
        "a dead worker holds its message, which comes back by itself",
        "the message returns to its queue now, if that worker was known",
    ),
    Kind.BEGUN_BY_DEAD_WORKER: Meaning(
        "its worker is dead and its lease expired; RabbitMQ gives its message to the next worker",
        "",
    ),
    Kind.LETTER_MISSING: Meaning(
        "dead-lettered, and its dead letter is neither in Postgres nor on its way there",
        "the kept copy of the letter is published again; without one only reported",
    ),
    Kind.LETTER_WITHOUT_RECORD: Meaning(
        "a letter waits in Postgres, and Redis has no record of its job", ""
    ),
    Kind.LETTER_BEHIND: Meaning(
        "a letter waits in Postgres, and its job was replayed already",
        "the letter is marked as replayed",
    ),
    Kind.REPLAY_APPLIED: Meaning(
        "an intent is open, and the record shows that it was carried out",
        "the intent is finished and audited",
    ),
    Kind.REPLAY_NOT_APPLIED: Meaning(
        "a replay counts as done, and the record was not changed",
        "the intent is opened again for the relay",
    ),
    Kind.REPLAY_UNKNOWN: Meaning(
        "an intent from before a restore, and Redis has no record of its job",
        "the intent is refused and its letter waits again: an operator must decide again",
    ),
    Kind.LEDGER_BEHIND: Meaning(
        "the ledger is older than the record, and no event is on its way",
        "the ledger's row is written from the record",
    ),
    Kind.JOB_FORGOTTEN: Meaning("not ended in the ledger, and Redis has no record of it", ""),
    Kind.DELAYED_WITHOUT_MESSAGE: Meaning(
        "a due time in the delay store without its message", "the time is removed"
    ),
    Kind.DELAYED_WITHOUT_TIME: Meaning(
        "a message in the delay store without a due time", "it becomes due now"
    ),
    Kind.UNACKED_WITHOUT_MESSAGE: Meaning(
        "a time of an unacknowledged message without the message", "the time is removed"
    ),
    Kind.UNACKED_WITHOUT_TIME: Meaning(
        "an unacknowledged message without a time, which no sweep would find",
        "it gets its time, and goes back after the visibility timeout",
    ),
    Kind.COPY_UNREADABLE: Meaning(
        "the stored copy of a lost message or letter is damaged, so it cannot be published again",
        "",
    ),
}
