"""The bytes of an audit row and of a seal, which are hashed with SHA-256.

Each column becomes one part, in a fixed order: `-;` for NULL, otherwise the length in bytes, a
colon, the bytes of the text and a semicolon. So two different rows never have the same bytes, and
NULL differs from empty text. Postgres makes the texts: jsonb has one text for each value, times are
whole microseconds since 1970, in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final

__all__ = ["FORM", "HASH_BYTES", "ROW_COLUMNS", "ROW_SQL", "digest", "in_microseconds", "row_hash"]

FORM: Final = 1
"""The form of new seals; a column that is added later will need form 2."""
HASH_BYTES: Final = 32


def in_microseconds(column: str) -> str:
    """Return SQL for a time as text; `Infinity` is text too, so every time can be hashed."""
    return f"trunc(extract(epoch FROM {column}) * 1000000)::text"


# Column of form 1 -> its text in SQL.
_TEXTS: Final[Mapping[str, str]] = {
    "id": "id::text",
    "request_id": "request_id::text",
    "action_type": "action_type",
    "operator_identity": "operator_identity",
    "identity_via": "identity_via",
    "on_behalf_of": "on_behalf_of",
    "reason": "reason",
    "target_request_id": "target_request_id",
    "dead_letter_id": "dead_letter_id::text",
    "outcome": "outcome",
    "detail": "detail::text",
    "performed_at": in_microseconds("performed_at"),
    "transaction_id": "transaction_id::text",
}
ROW_COLUMNS: Final = tuple(_TEXTS)
ROW_SQL: Final = ", ".join(f"{text} AS {name}" for name, text in _TEXTS.items())
"""The columns of a SELECT from `operator_audit_log`."""


def row_hash(row: Mapping[str, str | None]) -> bytes:
    """Return the hash of a row read with `ROW_SQL`; raises KeyError if a column is missing."""
    return digest("taskyard.audit.row 1", *(row[name] for name in ROW_COLUMNS))


def digest(*parts: str | bytes | None) -> bytes:
    """Return the SHA-256 of the parts in their unambiguous form."""
    return sha256(b"".join(_coded(parts))).digest()


def _coded(parts: Iterable[str | bytes | None]) -> Iterable[bytes]:
    for part in parts:
        if part is None:
            yield b"-;"
            continue
        held = part.encode() if isinstance(part, str) else part
        yield b"%d:%s;" % (len(held), held)
