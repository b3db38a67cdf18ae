"""An operator's message: verify who signed it, and carry out its verb once.

A message may come again after its worker was killed. Its request id is derived from the nonce, so
the next worker finds in the audit log what was done: verb and audit row are one transaction.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Engine

from taskyard import audit
from taskyard.access import Identity
from taskyard.access.credential import Call
from taskyard.access.credential_faults import Fault, refusal
from taskyard.access.operator_task_call import call_of_task
from taskyard.access.verify_credential import Verifier
from taskyard.audit import Outcome
from taskyard.control.nonces import bind_nonce, drop_expired, first_denial
from taskyard.control.operator_verb import MessageRef
from taskyard.errors import CredentialRefused, InvalidPayload, NotPermitted, Refused
from taskyard.wire.redacted_logs import logger

__all__ = ["OperatorMessage", "Signed", "accept", "request_id_of"]

log = logger(__name__)

# A message whose denial was counted may come again until the end of its job is certain.
_REMEMBERED: Final = timedelta(hours=1)
_NAMESPACE: Final = uuid.UUID("5b1de0b4-7f3c-5c55-8f0e-2a7f5f4f1d0a")


@dataclass(frozen=True, slots=True)
class OperatorMessage:
    """One message of an operator task; `message_id` is its job's id."""

    task: str
    message_id: str
    arguments: Mapping[str, Any]
    credential: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Signed:
    """An operator's message with a valid credential; `rows` are its rows in the audit log."""

    identity: Identity
    ref: MessageRef
    rows: tuple[Mapping[str, Any], ...]

    def raise_refusal(self) -> None:
        """Raise the refusal that answered an earlier delivery of this message, if one did."""
        for row in self.rows:
            why = str(row["detail"].get("why", row["outcome"]))
            if row["outcome"] == Outcome.DENIED:
                raise NotPermitted(why)
            if row["outcome"] not in (Outcome.REQUESTED, Outcome.APPLIED):
                raise Refused(why)


def request_id_of(nonce: str) -> uuid.UUID:
    """Return the request id of a signed call: the same for each copy and each delivery of it."""
    return uuid.uuid5(_NAMESPACE, nonce)


def accept(engine: Engine, verifier: Verifier, message: OperatorMessage) -> Signed:
    """Verify a message and bind its nonce to it; raises `CredentialRefused`, which is counted.

    A message can be delivered again after its credential has expired. If it was accepted in time
    and its verb was carried out, it is accepted again, and only the answer is repeated.
    """
    try:
        return _accepted(engine, verifier, message)
    except CredentialRefused as error:
        log.warning(
            "denied operator message %s of task %s: %s",
            message.message_id,
            message.task,
            error,
            extra={"action": "operator_message_denied", "code": error.code},
        )
        _count(engine, verifier, message, error)
        raise


def _count(
    engine: Engine, verifier: Verifier, message: OperatorMessage, error: CredentialRefused
) -> None:
    """Count the denial once, however often the message is delivered."""
    remembered = verifier.clock.now() + _REMEMBERED
    with engine.begin() as connection:
        if first_denial(connection, message.message_id, remembered):
            audit.count_unverified(connection, message.task, error.code)


def _accepted(engine: Engine, verifier: Verifier, message: OperatorMessage) -> Signed:
    call = _call_of(verifier.audience, message)
    verified = verifier.authenticate(message.credential, call)
    ref = MessageRef(request_id_of(verified.nonce), message.message_id)
    with engine.begin() as connection:
        rows = tuple(audit.rows_of(connection, ref.request_id))
        # The first row is the call's own; the rows after it are the relay's answer.
        if rows and rows[0]["detail"].get("message_id") != ref.message_id:
            raise refusal(Fault.NONCE_USED)
        if not rows:
            verified.check_time(verifier.clock.now())
            drop_expired(connection)
            expires = datetime.fromtimestamp(verified.nonce_expires_at, UTC)
            bind_nonce(connection, verified.nonce, ref.message_id, expires)
    return Signed(verified.identity, ref, rows)


def _call_of(audience: str, message: OperatorMessage) -> Call:
    try:
        return call_of_task(audience, message.task, message.arguments)
    except InvalidPayload:
        # NaN, or nested too deeply: no signer can have produced that.
        fault = Fault.UNSIGNED if message.credential is None else Fault.WRONG_ARGUMENTS
        raise refusal(fault) from None
