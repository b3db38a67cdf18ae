"""Read a dead letter's captured message with its secrets: permitted, reasoned and audited.

Alone because each operator verb has a file of its own.
"""

from __future__ import annotations

import uuid
from hashlib import sha256

from sqlalchemy import Engine, select

from taskyard.access import Action, Identity
from taskyard.audit import Outcome
from taskyard.control.find_letter_id import find_id
from taskyard.control.operator_reasons import Mode, check_reason
from taskyard.control.operator_verb import UNKNOWN_QUEUE, VerbCall, audited
from taskyard.control.replayed_message import captured
from taskyard.database.moved_rows import read_again
from taskyard.database.tables import LETTERS
from taskyard.wire import RawMessage

__all__ = ["read_payload"]


def read_payload(
    engine: Engine,
    letter_id: str | uuid.UUID,
    *,
    identity: Identity,
    reason: str | None,
    on_behalf_of: str | None = None,
    require_reason: Mode = "strict",
) -> RawMessage:
    """Return the message that a replay would send, unchanged.

    The audit row is committed before the message is returned. Raises `NotPermitted`, `NotFound`,
    and `Refused` for a dead letter without a message; each of them is audited.
    """
    call = VerbCall(Action.READ_PAYLOAD, identity, reason, on_behalf_of)
    with audited(engine, call):
        call.permit()
        call.reason = check_reason(reason, require_reason)
        with engine.begin() as connection:
            call.dead_letter_id = find_id(connection, letter_id, identity)
            query = select(LETTERS).where(LETTERS.c.id == call.dead_letter_id)
            row = dict(read_again(connection, query)[0])
            call.target_request_id = row["original_request_id"]
            call.permit_on(row["queue"] or UNKNOWN_QUEUE, domain=row["domain"])
            message = captured(row)
            digest = sha256(message.body).hexdigest()
            call.write(connection, Outcome.APPLIED, {"body_sha256": digest})
        return message
