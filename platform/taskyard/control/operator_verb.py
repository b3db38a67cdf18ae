"""The four steps of every operator verb: permit -> validate -> act -> audit.

A verb opens a `VerbCall` with `audited`, and permits, validates and acts inside it. An error that
it raises is audited too, in a separate transaction, since the verb's own is rolled back.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError

from taskyard import audit
from taskyard.access import Action, Identity
from taskyard.audit import Outcome
from taskyard.errors import InvalidPayload, NotFound, NotPermitted, Refused
from taskyard.wire.control_characters import escaped
from taskyard.wire.redacted_logs import logger
from taskyard.wire.redaction import mask_tokens
from taskyard.wire.stamp_header import LONGEST_ID

__all__ = ["UNKNOWN_QUEUE", "MessageRef", "VerbCall", "audited", "check_queue_name"]

log = logger(__name__)

# A dead letter that cannot be read has no queue, so it is outside every bound.
UNKNOWN_QUEUE: Final = "(unknown)"
_LONGEST: Final = 2000
_SHOWN: Final = 60


def check_queue_name(name: str) -> None:
    """Raise `InvalidPayload` for a name that no queue can have, or no table can store."""
    if not 0 < len(name) <= LONGEST_ID or escaped(name) != name:
        raise InvalidPayload(
            f"a queue's name has 1 to {LONGEST_ID} characters and no control characters, got "
            f"{len(name)} characters: {escaped(name[:_SHOWN])!r}. See: taskyard queues list"
        )


@dataclass(frozen=True, slots=True)
class MessageRef:
    """The operator's message that requested a call; `message_id` is its job's id.

    Each delivery of the message is the same call, with the same `request_id`.
    """

    request_id: uuid.UUID
    message_id: str


@dataclass(slots=True)
class VerbCall:
    """One call of a verb: the caller, the action and, once known, the job and the dead letter.

    `on_behalf_of` is the person for whom the caller acts, if that is not the identity itself.
    """

    action: Action
    identity: Identity
    reason: str | None
    on_behalf_of: str | None = None
    request_id: uuid.UUID = field(default_factory=uuid.uuid4)
    target_request_id: str | None = None
    dead_letter_id: uuid.UUID | None = None
    message: MessageRef | None = None

    def __post_init__(self) -> None:
        if self.message is not None:
            self.request_id = self.message.request_id

    def permit(self) -> None:
        """Raise `NotPermitted` if the identity may not take this action on any target."""
        self.identity.permit(self.action)

    def permit_on(self, *queues: str, domain: str | None) -> None:
        """Raise `NotPermitted` unless the target is within the identity's queues and domains."""
        self.identity.permit_on(self.action, queues=queues, domain=domain)

    def write(self, connection: Connection, outcome: str, detail: Mapping[str, object]) -> None:
        """Append this call's row to the audit log in the caller's transaction."""
        audit.write(connection, self.entry(outcome, detail))

    def entry(self, outcome: str, detail: Mapping[str, object]) -> audit.Entry:
        """Return this call's row for the audit log."""
        behalf = None if self.on_behalf_of == self.identity.subject else self.on_behalf_of
        return audit.Entry(
            request_id=self.request_id,
            action_type=self.action,
            operator_identity=self.identity.subject,
            identity_via=self.identity.via,
            on_behalf_of=None if behalf is None else _storable(behalf),
            reason=_storable(self.reason or ""),
            target_request_id=self.target_request_id,
            dead_letter_id=self.dead_letter_id,
            outcome=outcome,
            detail=detail
            if self.message is None
            else {**detail, "message_id": self.message.message_id},
        )


@contextmanager
def audited(engine: Engine, call: VerbCall) -> Iterator[VerbCall]:
    """Audit an error that the block raises.

    A missing right is audited as `denied`, any other error as `refused: why`. A value that Postgres
    cannot store is raised as `InvalidPayload`.
    """
    try:
        yield call
    except NotPermitted as error:
        _record(engine, call, Outcome.DENIED, error)
        raise
    except (Refused, NotFound, InvalidPayload) as error:
        _record(engine, call, audit.refused(error), error)
        raise
    except DataError as error:
        cause = str(error.orig).partition("\n")[0]
        invalid = InvalidPayload(f"Postgres cannot store a value of this call: {cause}")
        _record(engine, call, audit.refused(invalid), invalid)
        raise invalid from error


def _record(engine: Engine, call: VerbCall, outcome: str, error: Exception) -> None:
    with engine.begin() as connection:
        if call.message is not None and audit.rows_of(connection, call.request_id):
            return  # An earlier delivery of the message was answered.
        call.write(connection, outcome, {"why": _storable(str(error))})
    log.warning(
        "the operator action %s by %s was not carried out: %s",
        call.action,
        call.identity.subject,
        error,
        extra={"action": "verb_refused", "verb": call.action.value},
    )


def _storable(text: str) -> str:
    """Return a caller's text in a form that the audit log can store and that hides nothing."""
    return escaped(mask_tokens(text))[:_LONGEST]
