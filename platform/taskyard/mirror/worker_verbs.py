"""Verbs of processes without Postgres: verify them again, and write them into the audit log.

An entry of the stream proves nothing, because every program that can enqueue can append an entry.
So the identity comes only from the credential. An entry without a valid credential is a denial of
`broker:unverified`: such denials are counted and have no audit rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, text

from taskyard import audit
from taskyard.access.broadcast_calls import call_at, request_id_at
from taskyard.access.credential_faults import Fault
from taskyard.access.verify_credential import Verifier
from taskyard.audit import Outcome
from taskyard.errors import CredentialRefused
from taskyard.mirror.lifecycle_stream import StreamEntry
from taskyard.records.verb_events import VERB_FIELD, VerbEvent
from taskyard.wire.redacted_logs import logger

__all__ = ["is_verb", "store_verbs"]

log = logger(__name__)

_SOURCE: Final = "broadcast"
_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended(:request_id, 0))")


def is_verb(entry: StreamEntry) -> bool:
    """Return whether an entry of the stream is a verb; otherwise it is an event of a job."""
    return VERB_FIELD in entry.fields


def store_verbs(connection: Connection, entries: Sequence[StreamEntry], verifier: Verifier) -> None:
    """Write the audit rows of verbs in the caller's transaction; each row is written once.

    Denials without an identity are only counted. If the mirror dies between its commit and the
    acknowledgement of a batch, the denials of this batch are counted twice.
    """
    for entry in entries:
        try:
            event = VerbEvent.parse(entry.fields)
        except (KeyError, ValueError) as error:
            log.warning(
                "entry %s of the lifecycle stream is not a valid verb: %s",
                entry.id,
                error,
                extra={"action": "verb_unreadable", "entry": entry.id},
            )
            audit.count_unverified(connection, _SOURCE, Fault.MALFORMED)
            continue
        _store(connection, event, verifier)


def _store(connection: Connection, event: VerbEvent, verifier: Verifier) -> None:
    try:
        call = call_at(verifier.audience, event.verb, event.worker)
        verified = verifier.authenticate(event.credential or None, call)
        verified.check_time(event.at)
    except CredentialRefused as error:
        audit.count_unverified(connection, _SOURCE, error.code, event.at)
        return
    who = verified.identity
    request_id = request_id_at(verified.claims.nonce, event.worker)
    # Two mirrors may hold the same entry, where one is thought to be dead.
    connection.execute(_LOCK, {"request_id": str(request_id)})
    if audit.rows_of(connection, request_id):
        return
    entry = audit.Entry(
        request_id=request_id,
        action_type=event.verb,
        operator_identity=who.subject,
        identity_via=who.via,
        reason="",
        outcome=Outcome.DENIED if event.code else Outcome.APPLIED,
        detail={"worker": event.worker, "at": event.at.isoformat(), "nonce": verified.claims.nonce},
    )
    audit.write(connection, entry)
