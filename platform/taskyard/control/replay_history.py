"""A dead letter's replays: who asked for them and why, and how they ended."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, select

from taskyard.access import Action
from taskyard.audit import Outcome
from taskyard.control.await_relay import PENDING
from taskyard.control.replay_eligibility import Candidate, check_replayable
from taskyard.database.tables import AUDIT, LEDGER, LETTERS
from taskyard.errors import Refused
from taskyard.jobs import Category
from taskyard.jobs.letter_states import LetterStatus
from taskyard.jobs.replay_by_category import FANOUT
from taskyard.outbox import why_waiting
from taskyard.wire.redaction import redact_text

__all__ = ["ReplayEntry", "ReplayHistory", "replay_history_of"]


@dataclass(frozen=True, slots=True)
class ReplayEntry:
    """One replay in the audit log.

    `outcome` is `applied`, `refused: <why>`, or `pending` while the relay has not answered; after a
    failed try it is `pending: <why>`. `generation` is the generation that the replay opens. `queue`
    is the queue of a redirect.
    """

    at: datetime
    by: str
    on_behalf_of: str | None
    reason: str
    outcome: str
    generation: int
    queue: str | None
    edited: bool
    forced: bool


@dataclass(frozen=True, slots=True)
class ReplayHistory:
    """The replays of a dead letter, and what its job did since.

    `why_not` is why the dead letter cannot be replayed now, None if it can. `next_letter` is the
    dead letter of a later generation of the same epoch, if that generation died too. `job_state`
    and `job_generation` are the ledger's; None if the ledger has deleted the job.
    """

    why_not: str | None
    replays: tuple[ReplayEntry, ...]
    next_letter: uuid.UUID | None
    job_state: str | None
    job_generation: int | None


def replay_history_of(engine: Engine, letter: Mapping[str, Any]) -> ReplayHistory:
    """Return what happened after the death of a dead letter that `letters.show` returned."""
    with engine.connect() as connection:
        replays = _replays(connection, letter)
        job = _job(connection, letter)
        return ReplayHistory(
            why_not=_why_not(letter, replays),
            replays=replays,
            next_letter=_next_letter(connection, letter),
            job_state=None if job is None else job["state"],
            job_generation=None if job is None else job["generation"],
        )


def _why_not(letter: Mapping[str, Any], replays: tuple[ReplayEntry, ...]) -> str | None:
    by = f" by {replays[-1].by}" if replays else ""
    candidate = Candidate(
        letter_id=str(letter["id"]),
        status=LetterStatus(letter["status"]),
        category=Category(letter["failure_category"]),
        eligible=letter["replay_eligible"],
        replayed=letter["replayed_at"] and f"at {letter['replayed_at']:%Y-%m-%d %H:%M:%S} UTC{by}",
        fanout=(letter["evidence"] or {}).get(FANOUT),
    )
    try:
        check_replayable(candidate, edited=False, forced=False)
    except Refused as refusal:
        return str(refusal).removeprefix(f"letter {letter['id']} ")
    return None


def _replays(connection: Connection, letter: Mapping[str, Any]) -> tuple[ReplayEntry, ...]:
    """Return the requested replays, oldest first, without requests that were refused at once."""
    rows = connection.execute(
        select(AUDIT)
        .where(
            AUDIT.c.dead_letter_id == letter["id"],
            AUDIT.c.action_type == Action.CONTROLLED_REPLAY,
        )
        .order_by(AUDIT.c.id)
    ).mappings()
    asked: dict[uuid.UUID, Mapping[str, Any]] = {}
    answers: dict[uuid.UUID, str] = {}
    for row in rows:
        if row["outcome"] == Outcome.REQUESTED:
            asked[row["request_id"]] = dict(row)
        else:
            answers[row["request_id"]] = row["outcome"]
    generation = letter["generation"] + 1
    return tuple(
        _entry(row, answers.get(request) or _pending(connection, request), generation)
        for request, row in asked.items()
    )


def _pending(connection: Connection, request: uuid.UUID) -> str:
    why = why_waiting(connection, request)
    return PENDING if why is None else f"{PENDING}: {redact_text(why)}"


def _entry(row: Mapping[str, Any], outcome: str, generation: int) -> ReplayEntry:
    detail = row["detail"] or {}
    return ReplayEntry(
        at=row["performed_at"],
        by=row["operator_identity"],
        on_behalf_of=row["on_behalf_of"],
        reason=redact_text(row["reason"]),
        outcome=outcome,
        generation=generation,
        queue=detail.get("queue"),
        edited="payload_sha256" in detail,
        forced=bool(detail.get("force")),
    )


def _next_letter(connection: Connection, letter: Mapping[str, Any]) -> uuid.UUID | None:
    query = (
        select(LETTERS.c.id)
        .where(
            LETTERS.c.original_request_id == letter["original_request_id"],
            LETTERS.c.epoch == letter["epoch"],
            LETTERS.c.generation > letter["generation"],
        )
        .order_by(LETTERS.c.generation)
        .limit(1)
    )
    return connection.scalar(query)


def _job(connection: Connection, letter: Mapping[str, Any]) -> Mapping[str, Any] | None:
    query = select(LEDGER.c.state, LEDGER.c.generation).where(
        LEDGER.c.job_id == letter["original_request_id"], LEDGER.c.epoch == letter["epoch"]
    )
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else dict(row)
