"""Replay: a dead letter's message returns to its queue as the job's next generation."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import Connection, Engine, select

from taskyard import audit, outbox
from taskyard.access import Action, Identity
from taskyard.audit import Outcome
from taskyard.clock import to_us
from taskyard.control.check_edited_payload import KnownTypes, check_edit
from taskyard.control.find_letter_id import find_id
from taskyard.control.job_snapshot import ReadsRecords
from taskyard.control.letter_status import mark_replayed
from taskyard.control.operator_reasons import Mode, check_reason
from taskyard.control.operator_verb import (
    UNKNOWN_QUEUE,
    MessageRef,
    VerbCall,
    audited,
    check_queue_name,
)
from taskyard.control.replay_eligibility import Candidate, check_replayable
from taskyard.control.replayed_message import Edit, captured, check_identity, edited
from taskyard.control.withdraw_older import withdraw_older
from taskyard.database.moved_rows import read_again
from taskyard.database.tables import AUDIT, LETTERS
from taskyard.jobs import Category
from taskyard.jobs.letter_states import LetterStatus
from taskyard.jobs.replay_by_category import FANOUT
from taskyard.wire.decompression import UNPACKED_LIMIT

__all__ = ["KIND", "ReplayRequested", "replay"]

KIND: Final = "replay"


@dataclass(frozen=True, slots=True)
class ReplayRequested:
    """A requested replay, which the relay will carry out.

    `generation` is the generation that the replay opens. `payload_checked` is None without an
    edited payload. It is False if this process does not know the type's model: then the worker
    checks the payload.
    """

    request_id: uuid.UUID
    letter_id: uuid.UUID
    job_id: str
    generation: int
    payload_checked: bool | None = None


def replay(
    engine: Engine,
    letter_id: str | uuid.UUID,
    *,
    identity: Identity,
    reason: str | None,
    queue: str | None = None,
    payload: Edit | None = None,
    force: bool = False,
    on_behalf_of: str | None = None,
    require_reason: Mode = "strict",
    known: KnownTypes | None = None,
    max_unpacked_bytes: int = UNPACKED_LIMIT,
    message: MessageRef | None = None,
    records: ReadsRecords | None = None,
    bulk: bool = False,
) -> ReplayRequested:
    """Request the replay of a letter, named by its id or the first six characters or more.

    `queue` redirects it, `payload` replaces its arguments, `force` overrides expiry and the mark
    "not eligible". Letter, audit row and intent are one transaction. `known` is what this process
    knows of the workers' types: a payload that does not fit is refused before anything is written.
    A compressed body that `payload` edits may have `max_unpacked_bytes` at most. `message` is the
    operator's message with the request: if an earlier delivery of it was answered, that answer is
    returned. `bulk` is the relay's lane, see `outbox.is_bulk`.

    The replay withdraws what older open requests for the job would do, see `withdraw_older`: also
    a replay of this letter into another queue or with another payload. Without `records` only what
    no relay can have begun is withdrawn.

    Raises `NotPermitted`, `NotFound`, `InvalidPayload`, `Refused` (for example for a second
    replay); each of them is audited.
    """
    call = VerbCall(Action.CONTROLLED_REPLAY, identity, reason, on_behalf_of, message=message)
    with audited(engine, call):
        call.permit()
        call.reason = check_reason(reason, require_reason)
        if queue is not None:
            check_queue_name(queue)
        with engine.begin() as connection:
            row = _lock(connection, letter_id, call)
            if message is not None and audit.rows_of(connection, call.request_id):
                return _asked(row, call)
            call.permit_on(*_touched(row, queue), domain=row["domain"])
            older = withdraw_older(connection, records, _intent(row, call, queue, payload, bulk))
            row["status"] = older.reopened.get(row["id"], row["status"])
            _validate(connection, row, payload, force=force, limit=max_unpacked_bytes)
            checked = None if payload is None else check_edit(known, row["job_type"], payload)
            detail = {**_detail(queue, payload, force=force), **older.detail()}
            intent = _intent(row, call, queue, payload, bulk)
            asked = _act(connection, row, call, intent, detail)
            return dataclasses.replace(asked, payload_checked=checked)


def _lock(connection: Connection, name: str | uuid.UUID, call: VerbCall) -> dict[str, Any]:
    call.dead_letter_id = find_id(connection, name, call.identity)
    query = select(LETTERS).where(LETTERS.c.id == call.dead_letter_id).with_for_update()
    row = dict(read_again(connection, query)[0])
    call.target_request_id = row["original_request_id"]
    return row


def _touched(row: Mapping[str, Any], redirect: str | None) -> tuple[str, ...]:
    """Return the queues that the replay uses."""
    own = row["queue"] or UNKNOWN_QUEUE
    return (own,) if redirect is None else (own, redirect)


def _validate(
    connection: Connection,
    row: Mapping[str, Any],
    payload: Edit | None,
    *,
    force: bool,
    limit: int,
) -> None:
    status = LetterStatus(row["status"])
    candidate = Candidate(
        letter_id=str(row["id"]),
        status=status,
        category=Category(row["failure_category"]),
        eligible=row["replay_eligible"],
        replayed=_last_replay(connection, row) if status is LetterStatus.REPLAYED else None,
        fanout=(row["evidence"] or {}).get(FANOUT),
    )
    check_replayable(candidate, edited=payload is not None, forced=force)
    check_identity(row)
    message = captured(row)
    if payload is not None:
        edited(message, payload, limit)  # refuse now what the relay could not publish later


def _last_replay(connection: Connection, row: Mapping[str, Any]) -> str:
    query = (
        select(AUDIT.c.operator_identity)
        .where(AUDIT.c.dead_letter_id == row["id"], AUDIT.c.outcome == Outcome.REQUESTED)
        .order_by(AUDIT.c.id.desc())
        .limit(1)
    )
    who = connection.scalar(query) or "someone"
    return f"at {row['replayed_at']:%Y-%m-%d %H:%M:%S} UTC by {who}"


def _act(
    connection: Connection,
    row: Mapping[str, Any],
    call: VerbCall,
    intent: outbox.Intent,
    detail: Mapping[str, object],
) -> ReplayRequested:
    mark_replayed(connection, row["id"])
    call.write(connection, Outcome.REQUESTED, detail)
    outbox.put(connection, intent)
    return _asked(row, call)


def _asked(row: Mapping[str, Any], call: VerbCall) -> ReplayRequested:
    return ReplayRequested(
        call.request_id, row["id"], row["original_request_id"], row["generation"] + 1
    )


def _intent(
    row: Mapping[str, Any],
    call: VerbCall,
    queue: str | None,
    payload: Edit | None,
    bulk: bool,
) -> outbox.Intent:
    return outbox.Intent(
        id=call.request_id,
        kind=KIND,
        job_id=row["original_request_id"],
        epoch=row["epoch"],
        payload={
            "letter_id": str(row["id"]),
            "decided_us": to_us(row["decided_at"]),
            "status_before": row["status"],
            "queue": queue,
            "edit": None if payload is None else asdict(payload),
        },
        bulk=bulk,
    )


def _detail(queue: str | None, payload: Edit | None, *, force: bool) -> dict[str, object]:
    """Return the details for the audit log: of an edited payload only the hash.

    Payloads are erased later; audit rows are not.
    """
    detail: dict[str, object] = {"force": force}
    if queue is not None:
        detail["queue"] = queue
    if payload is not None:
        text = json.dumps(asdict(payload), sort_keys=True)
        detail["payload_sha256"] = sha256(text.encode()).hexdigest()
    return detail
