"""Verify the tables of the audit log as a whole: what no single row or seal shows.

The owner can drop a primary key, or put a view in the place of a table, which shows to `verify`
other rows than to everybody else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, text

from taskyard.audit.verify_findings import Finding, Kind

__all__ = ["faults_of_tables"]

_TWICE: Final = text(
    "SELECT sealed.id, array_agg(seal.seq ORDER BY seal.seq) "
    "FROM audit_seals AS seal, unnest(seal.row_ids) AS sealed(id) "
    "GROUP BY sealed.id HAVING count(*) > 1 ORDER BY sealed.id"
)
# Without its primary key, an id or a number does not say which row is meant.
_SAME_ID: Final = text(
    "SELECT id, count(*) FROM operator_audit_log GROUP BY id HAVING count(*) > 1 ORDER BY id"
)
_SAME_NUMBER: Final = text(
    "SELECT seq, count(*) FROM audit_seals GROUP BY seq HAVING count(*) > 1 ORDER BY seq"
)
# The only column of a seal that is not hashed: it repeats the greatest of the ids, for an index.
_LAST_ID: Final = text(
    "SELECT seq FROM audit_seals WHERE last_id IS DISTINCT FROM "
    "coalesce((SELECT max(sealed.id) FROM unnest(row_ids) AS sealed(id)), 0) ORDER BY seq"
)
_REDEFINED: Final = text(
    """
    SELECT relname::text, CASE
        WHEN relkind <> 'r' THEN 'is no table but a view or the like'
        WHEN relrowsecurity THEN 'hides rows from some roles by row security'
        ELSE 'has a rule that rewrites queries' END
    FROM pg_class
    WHERE oid IN (to_regclass('operator_audit_log'), to_regclass('audit_seals'))
        AND (relkind <> 'r' OR relrowsecurity
            OR EXISTS (SELECT FROM pg_rewrite WHERE ev_class = pg_class.oid))
    ORDER BY relname
    """
)


def faults_of_tables(connection: Connection) -> Iterator[Finding]:
    """Yield what is wrong with the tables, in the caller's snapshot."""
    for name, why in connection.execute(_REDEFINED):
        yield Finding(Kind.REDEFINED, f"{name} {why}, so others may see other rows")
    for row_id, seals in connection.execute(_TWICE):
        named = f"row {row_id} is in the seals {', '.join(map(str, seals[:5]))}"
        yield Finding(Kind.SEALED_TWICE, named, row=row_id)
    for row_id, count in connection.execute(_SAME_ID):
        yield Finding(Kind.DUPLICATE, f"{count} rows have the id {row_id}", row=row_id)
    for seq, count in connection.execute(_SAME_NUMBER):
        yield Finding(Kind.DUPLICATE, f"{count} seals have the number {seq}", seal=seq)
    for seq in connection.scalars(_LAST_ID):
        yield Finding(Kind.SEAL_CHANGED, f"the last_id of seal {seq} was changed", seal=seq)
