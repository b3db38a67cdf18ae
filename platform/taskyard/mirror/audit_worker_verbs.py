"""Verbs of processes without Postgres: verify them again, and write them into the audit log.

An entry of the stream proves nothing, because every program that can enqueue can append an entry.
So the identity comes only from the credential. A denial of a caller without one is counted and has
no audit row. A control command of Celery without one has the identity `broker:unverified`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, func, select, text

from taskyard import audit
from taskyard.access import Action
from taskyard.access.broadcast_calls import call_at, request_id_at
from taskyard.access.credential_faults import Fault
from taskyard.access.verify_credential import CLOCKS_MAY_DIFFER, Verified, Verifier
from taskyard.audit import Outcome
from taskyard.clock import from_us
from taskyard.database.tables import AUDIT
from taskyard.errors import CredentialRefused, NotPermitted
from taskyard.mirror.audit_commands import store_command
from taskyard.mirror.entry_faults import fault_of_entry
from taskyard.mirror.lifecycle_stream import StreamEntry
from taskyard.mirror.switch_rows import SWITCH_FIELD, SwitchEvent, store_switch
from taskyard.records.command_events import COMMAND_FIELD, CommandEvent
from taskyard.records.verb_events import VERB_FIELD, VerbEvent, entry_time
from taskyard.wire.redacted_logs import logger

__all__ = ["MOST_ROWS_OF_A_NONCE", "is_verb", "store_verbs"]

log = logger(__name__)

MOST_ROWS_OF_A_NONCE: Final = 1_000
"""A broadcast reaches as many workers; one credential can fill the audit log no further."""
_SOURCE: Final = "broadcast"
_FAULTS: Final = frozenset(fault.value for fault in Fault)
_WRONG_OUTCOME: Final = "wrong_outcome"
_TOO_MANY_WORKERS: Final = "too_many_workers"
_TOO_OLD: Final = timedelta(hours=1)
_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended(:nonce, 0))")


def is_verb(entry: StreamEntry) -> bool:
    """Return whether an entry of the stream is a verb; otherwise it is an event of a job."""
    return VERB_FIELD in entry.fields


def store_verbs(
    connection: Connection,
    entries: Sequence[StreamEntry],
    verifier: Verifier,
    workers: Collection[bytes],
) -> None:
    """Write the audit rows of verbs in the caller's transaction; each row is written once.

    `workers` are the names of workers that announced themselves. Denials without an identity are
    only counted, those of a minute and cause by one statement. If the mirror dies between its
    commit and the acknowledgement of a batch, the denials of this batch are counted twice.
    """
    denials = _Denials(verifier.clock.now())
    for entry in entries:
        event: VerbEvent | CommandEvent | SwitchEvent
        try:
            event, appended = _read(entry), entry_time(entry.id)
        except (KeyError, ValueError) as error:
            log.warning(
                "entry %s of the lifecycle stream is not a valid verb: %s",
                entry.id,
                error,
                extra={"action": "verb_unreadable", "entry": entry.id},
            )
            denials.add(Fault.MALFORMED)
            continue
        if isinstance(event, SwitchEvent):
            fault = store_switch(connection, event, verifier, appended)
            if fault is not None:
                denials.add(fault, event.at)
            continue
        known = event.worker.encode() in workers
        if isinstance(event, CommandEvent):
            fault = store_command(connection, event, verifier, appended, known=known)
            if fault is not None:
                denials.add(fault, event.at)
            continue
        _store(connection, event, verifier, appended, denials, known=known)
    denials.store(connection)


def _read(entry: StreamEntry) -> VerbEvent | CommandEvent | SwitchEvent:
    """Return what an entry says; raises KeyError and ValueError."""
    if SWITCH_FIELD in entry.fields:
        return SwitchEvent.parse(entry.fields)
    if COMMAND_FIELD in entry.fields:
        return CommandEvent.parse(entry.fields)
    return VerbEvent.parse(entry.fields)


class _Denials:
    """The denials of one batch, by cause and minute: anyone can cause thousands.

    Their time comes from a stranger, so it is brought within an hour before `now`.
    """

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._counts: Counter[tuple[str, datetime]] = Counter()

    def add(self, code: str, at: datetime | None = None, count: int = 1) -> None:
        within = self._now if at is None else min(max(at, self._now - _TOO_OLD), self._now)
        self._counts[code, within.replace(second=0, microsecond=0)] += count

    def store(self, connection: Connection) -> None:
        # The same order everywhere prevents deadlocks.
        for (code, minute), count in sorted(self._counts.items()):
            audit.count_unverified(connection, _SOURCE, code, minute, count)


def _store(
    connection: Connection,
    event: VerbEvent,
    verifier: Verifier,
    appended: datetime,
    denials: _Denials,
    *,
    known: bool,
) -> None:
    if not event.credential:
        code = event.code if event.code in _FAULTS else Fault.UNSIGNED
        denials.add(code, event.at, event.count)
        return
    try:
        call = call_at(verifier.audience, event.verb, event.worker)
        verified = verifier.authenticate(event.credential, call)
        fault = fault_of_entry(event.at, verified, appended, verifier.clock.now(), known=known)
        if fault is None and event.code and _may(verified, event.verb):
            fault = _WRONG_OUTCOME
    except CredentialRefused as error:
        denials.add(error.code, event.at)
        return
    if fault is None:
        fault = _write(connection, event, verified)
    if fault is not None:
        denials.add(fault, event.at)


def _may(verified: Verified, verb: Action) -> bool:
    """Return whether the caller has the right to the verb.

    Only a missing right denies a verified caller. So an entry that says so of a caller with the
    right is not a worker's: it would hide what the worker does.
    """
    try:
        verified.identity.permit(verb)
    except NotPermitted:
        return False
    return True


def _write(connection: Connection, event: VerbEvent, verified: Verified) -> str | None:
    """Write the row of a verb, once; return why it is counted instead, if it is."""
    who, nonce = verified.identity, verified.nonce
    request_id = request_id_at(nonce, event.worker)
    # Two mirrors may hold the same entry, where one is thought to be dead, or other entries of the
    # same credential.
    connection.execute(_LOCK, {"nonce": nonce})
    if audit.rows_of(connection, request_id):
        return None
    if _rows_of_nonce(connection, verified) >= MOST_ROWS_OF_A_NONCE:
        return _TOO_MANY_WORKERS
    entry = audit.Entry(
        request_id=request_id,
        action_type=event.verb,
        operator_identity=who.subject,
        identity_via=who.via,
        reason="",
        outcome=Outcome.DENIED if event.code else Outcome.APPLIED,
        detail={"worker": event.worker, "at": event.at.isoformat(), "nonce": nonce},
    )
    audit.write(connection, entry)
    return None


def _rows_of_nonce(connection: Connection, verified: Verified) -> int:
    # No row of a credential is older than the credential: the index on the time limits the search.
    since = from_us(verified.claims.iat * 1_000_000) - 2 * CLOCKS_MAY_DIFFER
    query = (
        select(func.count())
        .select_from(AUDIT)
        .where(
            AUDIT.c.performed_at >= since,
            AUDIT.c.operator_identity == verified.identity.subject,
            AUDIT.c.detail["nonce"].astext == verified.nonce,
        )
    )
    return connection.scalar(query) or 0
