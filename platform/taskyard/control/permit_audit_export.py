"""Export the audit log: permitted, reasoned, and audited itself before the first row is read.

Alone because each operator verb has a file of its own.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from taskyard.access import Action, Identity
from taskyard.audit import Outcome
from taskyard.audit.read import Filters, rows_within, size_of
from taskyard.control.operator_reasons import Mode, check_reason
from taskyard.control.operator_verb import VerbCall, audited

__all__ = ["AuditExport", "export_audit"]


@dataclass(frozen=True, slots=True)
class AuditExport:
    """The rows of an export, which can be read once, and their number."""

    request_id: uuid.UUID
    count: int
    rows: Iterator[dict[str, Any]]


@contextmanager
def export_audit(
    engine: Engine,
    filters: Filters,
    *,
    identity: Identity,
    reason: str | None,
    on_behalf_of: str | None = None,
    require_reason: Mode = "strict",
) -> Iterator[AuditExport]:
    """Open an export of the rows that match, secrets masked, all from one snapshot.

    The export does not contain its own audit row. Raises `NotPermitted`, `InvalidReason`; both are
    audited.
    """
    call = VerbCall(Action.EXPORT_AUDIT, identity, reason, on_behalf_of)
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with audited(engine, call):
        call.permit()
        call.reason = check_reason(reason, require_reason)
    with engine.connect().execution_options(**options) as snapshot:
        count = size_of(snapshot, filters)
        with engine.begin() as connection:
            call.write(connection, Outcome.APPLIED, {"rows": count, "filters": filters.document()})
        yield AuditExport(call.request_id, count, rows_within(snapshot, filters))
