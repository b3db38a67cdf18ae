"""The archiver moves old seals with their rows from Postgres into archive files.

A seal is a hash over some rows of the audit log and over the seal before. First the archiver
writes a file, verifies it, and waits until it is on the disk. Then one transaction removes the
archived rows and adds a new seal, which names the last seal in the file. If the process is killed
between these two steps, the rows are still in Postgres, and the next run writes the file again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, text

from taskyard.audit.archive import Sealed, read_archive, write_archive
from taskyard.audit.canonical_bytes import ROW_SQL, in_microseconds, row_hash
from taskyard.audit.seal_chain import (
    LOCK_SQL,
    Seal,
    append,
    cluster_of,
    follow,
    last_seal,
    seals_after,
)
from taskyard.wire.redacted_logs import logger

__all__ = ["Archiver", "rows_of_seals"]

log = logger(__name__)

_SEALS_A_FILE: Final = 10_000
_ROWS_A_FILE: Final = 20_000  # the rows are in memory until the file is written
_ROWS_AT_ONCE: Final = 2000
_ROWS: Final = text(f"SELECT {ROW_SQL} FROM operator_audit_log WHERE id = ANY(:ids)")  # noqa: S608 - constant
# The last seals stay: the next seal contains the hash of the last one.
_OLD: Final = text(
    "SELECT (SELECT min(seq) FROM audit_seals WHERE seq > 0), least("
    "(SELECT min(seq) FROM audit_seals "
    "WHERE seq > 0 AND sealed_at >= now() - make_interval(days => :days)), "
    "(SELECT max(seq) FROM audit_seals))"
)
# One at a time archives a schema's log, also where several relays share the folder.
_LOCK: Final = text(
    "SELECT pg_try_advisory_xact_lock("
    "hashtextextended('taskyard.audit.archiver ' || current_schema(), 0))"
)
_WAIT: Final = text(f"SELECT pg_advisory_xact_lock({LOCK_SQL})")
_NOW: Final = text(f"SELECT {in_microseconds('clock_timestamp()')}, pg_current_xact_id()::text")
_REMOVE: Final = text("SELECT taskyard_remove_archived_audit(:through)")


class Archiver:
    """Moves rows and seals that are older than `days` into `folder`."""

    def __init__(self, engine: Engine, folder: Path, days: int) -> None:
        self._engine, self._folder, self._days = engine, folder, days

    def run_once(self) -> int:
        """Archive old rows, one file at a time; return how many. Raises OSError."""
        total = 0
        while (found := self._step()) is not None:
            total += found
        return total

    def _step(self) -> int | None:
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        # The lock lasts as long as this transaction: until the rows are removed.
        with self._engine.connect().execution_options(**options) as snapshot:
            if not snapshot.scalar(_LOCK):
                return None
            first, young = snapshot.execute(_OLD, {"days": self._days}).one()
            if first is None or first >= young:
                return None
            parts = _parts(snapshot, first, young)
            # Old seals that have no rows, and only note what was archived, stay until rows follow.
            if not any(part.rows for part in parts) or not _is_whole(parts):
                return None
            return self._archive(parts)

    def _archive(self, parts: Sequence[Sealed]) -> int:
        path = write_archive(self._folder, parts)
        if [part.seal for part in read_archive(path)] != [part.seal for part in parts]:
            raise OSError(
                f"the archive {path} was written, and reading it gives other data: check the disk"
            )
        through = parts[-1].seal.seq
        removed = self._remove(through)
        log.info(
            "archived %d audit rows up to seal %d in %s and removed them from Postgres",
            removed,
            through,
            path,
            extra={"action": "audit_archived", "rows": removed, "seal": through},
        )
        return removed

    def _remove(self, through: int) -> int:
        with self._engine.begin() as connection:
            connection.execute(_WAIT)
            now_us, own = connection.execute(_NOW).one()
            marker = follow(
                last_seal(connection),
                cluster=cluster_of(connection),
                sealed_us=int(now_us),
                closed_below=None,
                next_transaction=int(own),
                row_ids=(),
                row_hashes=b"",
                archived_through=through,
            )
            append(connection, marker)
            return int(connection.scalar(_REMOVE, {"through": through}) or 0)


def rows_of_seals(connection: Connection, seals: list[Seal]) -> dict[int, dict[str, str | None]]:
    """Return the existing rows of some seals by their ids."""
    ids = [row_id for seal in seals for row_id in seal.row_ids]
    rows: dict[int, dict[str, str | None]] = {}
    for start in range(0, len(ids), _ROWS_AT_ONCE):
        found = connection.execute(_ROWS, {"ids": ids[start : start + _ROWS_AT_ONCE]}).mappings()
        rows.update((int(row["id"]), dict(row)) for row in found)
    return rows


def _parts(connection: Connection, first: int, young: int) -> list[Sealed]:
    """Yield groups of seals from `first` up to `young` without it; one group fits into one file."""
    parts: list[Sealed] = []
    count = 0
    for page in seals_after(connection, first - 1):
        seals = [seal for seal in page if seal.seq < young]
        rows = rows_of_seals(connection, seals)
        for seal in seals:
            held = {row_id: rows[row_id] for row_id in seal.row_ids if row_id in rows}
            parts.append(Sealed(seal, held))
            count += len(held)
            if len(parts) == _SEALS_A_FILE or count >= _ROWS_A_FILE:
                return parts
        if len(seals) < len(page):
            break
    return parts


def _is_whole(parts: Sequence[Sealed]) -> bool:
    """Return whether rows and seals are unchanged.

    If one was changed, log the change; then nothing is archived.
    """
    fault = _fault(parts)
    if fault is not None:
        log.error(
            "the audit log was not archived: %s. To examine it, run: taskyard audit verify. "
            "Nothing was "
            "removed, and archiving is tried again in an hour",
            fault,
            extra={"action": "audit_archive_refused"},
        )
    return fault is None


def _fault(parts: Sequence[Sealed]) -> str | None:
    """Return which row or seal was changed, None if none was.

    A changed row must stay in Postgres, where an operator can examine it.
    """
    previous: Seal | None = None
    for part in parts:
        seal = part.seal
        if seal.digest() != seal.hash:
            return f"seal {seal.seq} was changed"
        if previous is not None and (seal.seq, seal.prev_hash) != (previous.seq + 1, previous.hash):
            return f"seal {seal.seq} does not follow from seal {previous.seq}"
        for row_id, sealed in seal.rows():
            row = part.rows.get(row_id)
            if row is None or row_hash(row) != sealed:
                return f"row {row_id} of seal {seal.seq} is {'gone' if row is None else 'changed'}"
        previous = seal
    return None
