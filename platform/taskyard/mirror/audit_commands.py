"""Write control commands of Celery into the audit log: a request and an outcome for a broadcast.

A command without a credential is that of `broker:unverified`: its rows say what workers, or any
program that can enqueue, appended to the stream. So a minute has a limited number of them, and the
others are counted.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import Connection, func, select, text

from taskyard import audit
from taskyard.access.broadcast_calls import UNVERIFIED, command_at, request_id_of_command
from taskyard.access.credential_faults import Fault
from taskyard.access.verify_credential import Verifier
from taskyard.audit import Outcome
from taskyard.database.tables import AUDIT
from taskyard.engine.control_command_table import verb_of
from taskyard.errors import CredentialRefused, NotPermitted
from taskyard.mirror.entry_faults import fault_of_entry
from taskyard.records.command_events import LONGEST_JOBS, CommandEvent
from taskyard.wire.lossless_json import pack
from taskyard.wire.stamp_header import usable_id

__all__ = ["MOST_UNVERIFIED_A_MINUTE", "store_command"]

MOST_UNVERIFIED_A_MINUTE: Final = 100
"""So many commands without a credential have rows; each has two, and none is ever removed."""
_LONGEST_UNVERIFIED: Final = 4_096
"""Longer arguments and lists of jobs of such a command have only their hash in a row."""
_TOO_MANY: Final = "too_many_commands"
_NOT_PERMITTED: Final = "not_permitted"
_WRONG_OUTCOME: Final = "wrong_outcome"
_VIA: Final = "broadcast"
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended(:broadcast, 0))")


def store_command(
    connection: Connection,
    event: CommandEvent,
    verifier: Verifier,
    appended: datetime,
    *,
    known: bool,
) -> str | None:
    """Write the row of a command's request or outcome, once; return why it is counted instead.

    `known`: a worker of the event's name has announced itself.
    """
    if verb_of(event.command, event.given) is not event.verb:
        return Fault.MALFORMED.value
    if not event.credential:
        return _store_unverified(connection, event)
    try:
        return _store_signed(connection, event, verifier, appended, known=known)
    except CredentialRefused as error:
        return error.code
    except NotPermitted:
        return _NOT_PERMITTED


def _store_unverified(connection: Connection, event: CommandEvent) -> str | None:
    if _HASH.fullmatch(event.broadcast) is None:
        return Fault.MALFORMED.value
    connection.execute(_LOCK, {"broadcast": event.broadcast})
    request_id = request_id_of_command(event.broadcast, signed=False)
    rows = audit.rows_of(connection, request_id)
    if not rows and _unverified_of_a_minute(connection) >= 2 * MOST_UNVERIFIED_A_MINUTE:
        return _TOO_MANY
    entry = audit.Entry(
        request_id=request_id,
        action_type=event.verb,
        operator_identity=UNVERIFIED,
        identity_via=_VIA,
        reason="",
        outcome=_outcome(event),
        target_request_id=_target(event),
        detail=_detail(event, _LONGEST_UNVERIFIED),
    )
    _write_once(connection, entry, rows)
    return None


def _store_signed(
    connection: Connection,
    event: CommandEvent,
    verifier: Verifier,
    appended: datetime,
    *,
    known: bool,
) -> str | None:
    call = command_at(verifier.audience, event.verb, event.command, event.given, event.worker)
    verified = verifier.authenticate(event.credential, call)
    fault = fault_of_entry(event.at, verified, appended, verifier.clock.now(), known=known)
    who, nonce = verified.identity, verified.nonce
    if fault is None and nonce != event.broadcast:
        fault = Fault.MALFORMED.value
    if fault is not None:
        return fault
    if event.outcome != Outcome.DENIED:
        who.permit(event.verb)
    elif who.may(event.verb) and who.queues is None and who.domains is None:
        # Only a missing right denies a verified caller: the entry is not a worker's.
        return _WRONG_OUTCOME
    connection.execute(_LOCK, {"broadcast": nonce})
    request_id = request_id_of_command(nonce, signed=True)
    entry = audit.Entry(
        request_id=request_id,
        action_type=event.verb,
        operator_identity=who.subject,
        identity_via=who.via,
        reason="",
        outcome=_outcome(event),
        target_request_id=_target(event),
        detail={**_detail(event, LONGEST_JOBS), "nonce": nonce},
    )
    _write_once(connection, entry, audit.rows_of(connection, request_id))
    return None


def _write_once(connection: Connection, entry: audit.Entry, rows: list[dict[str, Any]]) -> None:
    """Write the request unless it is there, or the outcome unless one is there."""
    is_request = entry.outcome == Outcome.REQUESTED
    if not any((row["outcome"] == Outcome.REQUESTED) == is_request for row in rows):
        audit.write(connection, entry)


def _outcome(event: CommandEvent) -> str:
    if not event.outcome:
        return Outcome.REQUESTED
    if event.outcome in (Outcome.APPLIED, Outcome.DENIED):
        return event.outcome
    return audit.refused(event.outcome.removeprefix("refused: "))


def _detail(event: CommandEvent, limit: int) -> dict[str, Any]:
    """Return the facts: the arguments with the request, the jobs with the outcome."""
    detail = {"worker": event.worker, "at": event.at.isoformat(), "command": event.command}
    if not event.outcome:
        return {**detail, "arguments": _within(limit, event.arguments)}
    return {**detail, "jobs": _within(limit, event.jobs or "{}")}


def _within(limit: int, text: str) -> Any:
    """Return the JSON value of `text`, or size and hash of a text that is too long for a row."""
    if len(text) <= limit:
        return pack(json.loads(text))
    digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return {"characters": len(text), "sha256": digest}


def _target(event: CommandEvent) -> str | None:
    """Return the id of the job if the command names one job."""
    given = event.given.get("task_id")
    if isinstance(given, list) and len(given) == 1:
        given = given[0]
    return usable_id(given)


def _unverified_of_a_minute(connection: Connection) -> int:
    query = (
        select(func.count())
        .select_from(AUDIT)
        .where(
            AUDIT.c.performed_at >= func.now() - timedelta(minutes=1),
            AUDIT.c.operator_identity == UNVERIFIED,
        )
    )
    return connection.scalar(query) or 0
