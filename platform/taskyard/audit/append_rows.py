"""Append rows to `operator_audit_log`; the database refuses every change to a row."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, insert, text

from taskyard.access import Action
from taskyard.database.bulk_write import insert_from_arrays, write_rows
from taskyard.database.tables import AUDIT
from taskyard.wire.lossless_json import clean_text
from taskyard.wire.redaction import mask_tokens, redact_text

__all__ = [
    "Answer",
    "Entry",
    "Outcome",
    "answer",
    "answer_many",
    "refused",
    "write",
    "write_many",
]

_OF_THE_ANSWER: Final = frozenset({"id", "outcome", "detail", "performed_at", "transaction_id"})
_COPIED: Final = [column.name for column in AUDIT.c if column.name not in _OF_THE_ANSWER]
_ANSWER: Final = text(
    f"""
    INSERT INTO operator_audit_log ({", ".join(_COPIED)}, outcome, detail)
    SELECT {", ".join(f"request.{name}" for name in _COPIED)}, given.outcome, given.detail
    FROM unnest(CAST(:ids AS uuid[]), CAST(:outcomes AS text[]), CAST(:details AS jsonb[]))
        WITH ORDINALITY AS given (id, outcome, detail, place)
    JOIN operator_audit_log AS request
        ON request.request_id = given.id AND request.outcome = 'requested'
    ORDER BY given.place
    """  # noqa: S608 - names of columns
)
_MANY: Final = insert_from_arrays(
    AUDIT,
    (
        "request_id",
        "action_type",
        "operator_identity",
        "identity_via",
        "reason",
        "outcome",
        "on_behalf_of",
        "target_request_id",
        "dead_letter_id",
        "detail",
    ),
)


class Outcome(StrEnum):
    """The outcome of a verb; `refused` builds the outcome of a refused verb, with the reason."""

    REQUESTED = "requested"
    APPLIED = "applied"
    DENIED = "denied"


def refused(why: object) -> str:
    """Return the outcome of a refused verb: at most 2,000 characters, secrets masked."""
    return redact_text(clean_text(f"refused: {why}".replace("\x00", "")))[:2000]


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the audit log.

    All rows of one call have the same `request_id`. The row's time is when it is written; put a
    time of another clock into `detail`.
    """

    request_id: uuid.UUID
    action_type: Action
    operator_identity: str
    identity_via: str
    reason: str
    outcome: str
    on_behalf_of: str | None = None
    target_request_id: str | None = None
    dead_letter_id: uuid.UUID | None = None
    detail: Mapping[str, object] = field(default_factory=dict)


def write(connection: Connection, entry: Entry) -> None:
    """Append `entry` in the caller's transaction; tokens and credentials in it are masked."""
    connection.execute(insert(AUDIT).values(_without_secrets(asdict(entry))))


def write_many(connection: Connection, entries: Sequence[Entry]) -> None:
    """Append `entries` in the caller's transaction, as `write` does, in one statement."""
    if entries:
        write_rows(connection, _MANY, [_without_secrets(asdict(entry)) for entry in entries])


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a requested action; `detail` is for the row's column of that name."""

    request_id: uuid.UUID
    outcome: str
    detail: Mapping[str, object] = field(default_factory=dict)


def answer(
    connection: Connection, request_id: uuid.UUID, outcome: str, detail: Mapping[str, object]
) -> None:
    """Append the outcome of a requested action, with the identities of the request's row."""
    answer_many(connection, [Answer(request_id, outcome, detail)])


def answer_many(connection: Connection, answers: Sequence[Answer]) -> None:
    """Append the outcomes of requested actions in their order, in one statement."""
    if not answers:
        return
    values = {
        "ids": [str(each.request_id) for each in answers],
        "outcomes": [mask_tokens(each.outcome) for each in answers],
        "details": [json.dumps(_without_secrets(dict(each.detail))) for each in answers],
    }
    connection.execute(_ANSWER, values)


def _without_secrets(value: Any) -> Any:
    """Return the value with tokens and credentials masked: no row can be changed later."""
    match value:
        case str():
            # A member of an enum keeps its type.
            masked = mask_tokens(value)
            return value if masked == value else masked
        case Mapping():
            return {_without_secrets(name): _without_secrets(item) for name, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_without_secrets(item) for item in value]
    return value
