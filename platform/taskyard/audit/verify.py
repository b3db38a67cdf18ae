"""Verify the audit log.

Each row against its seal, each seal against the previous one, and the heads.

The hashes need no secret, so the owner of the tables can compute a new chain over changed rows.
Such a chain does not contain a head that was exported before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Engine, text

from taskyard.audit.canonical import FORM, HASH_BYTES, ROW_SQL, in_microseconds, row_hash
from taskyard.audit.chain import GENESIS, Seal, cluster_of, seals_after
from taskyard.audit.findings import Kind, Report
from taskyard.audit.heads import Head
from taskyard.audit.horizon import Horizons, Written

__all__ = ["verify", "verify_in"]

_ROWS_AT_ONCE: Final = 2000
_ROWS: Final = text(f"SELECT {ROW_SQL} FROM operator_audit_log WHERE id = ANY(:ids)")  # noqa: S608 - constant
_UNSEALED: Final = text(
    f"""
    SELECT id, transaction_id,
        {in_microseconds("performed_at")} AS performed_us
    FROM operator_audit_log AS written WHERE NOT EXISTS (
        SELECT FROM audit_seals AS seal, unnest(seal.row_ids) AS sealed(id)
        WHERE sealed.id = written.id)
    ORDER BY id
    """  # noqa: S608 - constant
)
_TWICE: Final = text(
    "SELECT sealed.id, array_agg(seal.seq ORDER BY seal.seq) "
    "FROM audit_seals AS seal, unnest(seal.row_ids) AS sealed(id) "
    "GROUP BY sealed.id HAVING count(*) > 1 ORDER BY sealed.id"
)
_NO_HEAD: Final = (
    "not compared with an exported head: a completely recomputed chain would not be noticed. Give "
    "one with --head, from the relay's log or from the file that "
    "TASKYARD_AUDIT_HEAD_FILE names"
)


def verify(engine: Engine, heads: Sequence[Head]) -> Report:
    """Compare rows, seals and exported heads in one snapshot; the sealer may work meanwhile."""
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as connection:
        return verify_in(connection, heads)


def verify_in(connection: Connection, heads: Sequence[Head]) -> Report:
    """Do the same in the caller's transaction, which must have one snapshot."""
    return _Verification(connection, heads).run()


class _Verification:
    """One pass along the chain."""

    def __init__(self, connection: Connection, heads: Sequence[Head]) -> None:
        self._connection = connection
        self._numbered = _by_number(heads)
        self._hashes = {head.hash for head in heads if head.seq is None}
        self._any_head = bool(heads)
        self._report = Report()
        self._horizons = Horizons()
        self._previous: Seal | None = None

    def run(self) -> Report:
        report = self._report
        for page in seals_after(self._connection, 0):
            for seal in page:
                self._check_link(seal)
                self._check_head(seal)
            self._check_rows(page)
        self._check_heads_left()
        self._check_twice()
        self._check_unsealed()
        if not self._any_head:
            report.notes.append(_NO_HEAD)
        return report

    def _check_link(self, seal: Seal) -> None:
        report, previous = self._report, self._previous
        report.seals += 1
        report.head = Head(seal.seq, seal.hash)
        if seal.digest() != seal.hash or len(seal.row_hashes) != HASH_BYTES * len(seal.row_ids):
            report.add(Kind.SEAL_CHANGED, f"seal {seal.seq} was changed", seal=seal.seq)
        number = 1 if previous is None else previous.seq + 1
        if seal.seq != number:
            missing = f"seal {number}" + (f" to {seal.seq - 1}" if seal.seq - number > 1 else "")
            report.add(Kind.CHAIN_BROKEN, f"{missing} is missing", seal=number)
        elif seal.prev_hash != (GENESIS if previous is None else previous.hash):
            named = f"seal {seal.seq} does not follow from seal {number - 1}"
            report.add(Kind.CHAIN_BROKEN, named, seal=seal.seq)
        if previous is not None and previous.cluster != seal.cluster:
            report.notes.append(
                f"from seal {seal.seq} on, {_day(seal)}, the chain was written by other servers "
                f"(system identifier {seal.cluster} after {previous.cluster}): a restore"
            )
        self._previous = seal

    def _check_head(self, seal: Seal) -> None:
        for expected in self._numbered.pop(seal.seq, ()):
            if expected == seal.hash:
                self._report.heads += 1
            else:
                named = f"seal {seal.seq} has another hash than the exported {expected.hex()}"
                self._report.add(Kind.HEAD_DIFFERS, named, seal=seal.seq)
        if seal.hash in self._hashes:
            self._hashes.discard(seal.hash)
            self._report.heads += 1

    def _check_heads_left(self) -> None:
        last = 0 if self._previous is None else self._previous.seq
        for seq in sorted(self._numbered):
            named = (
                f"seal {seq}, whose head was exported, is missing; the chain ends at seal {last}"
            )
            self._report.add(Kind.HEAD_MISSING, named, seal=seq)
        for expected in sorted(self._hashes):
            named = f"no seal has the exported head {expected.hex()}"
            self._report.add(Kind.HEAD_MISSING, named)

    def _check_rows(self, page: Sequence[Seal]) -> None:
        ids = [row_id for seal in page for row_id in seal.row_ids]
        rows: dict[int, Mapping[str, Any]] = {}
        for start in range(0, len(ids), _ROWS_AT_ONCE):
            part = {"ids": ids[start : start + _ROWS_AT_ONCE]}
            found = self._connection.execute(_ROWS, part).mappings()
            rows.update((int(row["id"]), dict(row)) for row in found)
        for seal in page:
            self._horizons.enter(seal.cluster)
            for row_id, sealed in seal.rows():
                self._check_row(seal, row_id, sealed, rows.get(row_id))
            self._horizons.add(seal)

    def _check_row(
        self, seal: Seal, row_id: int, sealed: bytes, row: Mapping[str, Any] | None
    ) -> None:
        report = self._report
        if row is None:
            named = f"row {row_id} of seal {seal.seq} is missing"
            report.add(Kind.MISSING, named, row=row_id, seal=seal.seq)
            return
        report.rows += 1
        if seal.form != FORM or row_hash(row) != sealed:
            named = f"row {row_id} differs from seal {seal.seq} of {_day(seal)}"
            report.add(Kind.CHANGED, named, row=row_id, seal=seal.seq)
        written = Written(row_id, int(row["transaction_id"]), _number(row["performed_at"]))
        self._check_place(written, f"row {row_id}, in seal {seal.seq},")

    def _check_place(self, written: Written, named: str) -> None:
        for kind, seal in self._horizons.contradictions(written):
            match kind:
                case Kind.INSERTED:
                    what = "did not exist when its place in the log was sealed"
                case _:
                    what = "has a time before that seal, but was written after it"
            told = f"{named} {what} (seal {seal})"
            self._report.add(kind, told, row=written.row_id, seal=seal)

    def _check_twice(self) -> None:
        for row_id, seals in self._connection.execute(_TWICE):
            named = f"row {row_id} is in the seals {', '.join(map(str, seals[:5]))}"
            self._report.add(Kind.SEALED_TWICE, named, row=row_id)

    def _check_unsealed(self) -> None:
        report = self._report
        self._horizons.enter(cluster_of(self._connection))
        for row in self._unsealed():
            report.unsealed += 1
            moment = None if row.performed_us is None else _moment(row.performed_us)
            if moment is not None and (
                report.unsealed_since is None or moment < report.unsealed_since
            ):
                report.unsealed_since = moment
            self._check_place(row, f"row {row.row_id}, which is in no seal,")

    def _unsealed(self) -> Iterator[Written]:
        for row in self._connection.execute(_UNSEALED):
            yield Written(row.id, row.transaction_id, _number(row.performed_us))


def _by_number(heads: Sequence[Head]) -> dict[int, set[bytes]]:
    found: dict[int, set[bytes]] = {}
    for head in heads:
        if head.seq is not None:
            found.setdefault(head.seq, set()).add(head.hash)
    return found


def _number(written: str | None) -> int | None:
    """Return microseconds, None for an invalid time, which a sealed row never has."""
    return int(written) if written is not None and written.lstrip("-").isdigit() else None


def _moment(us: int) -> datetime | None:
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
    except OverflowError:
        return None


def _day(seal: Seal) -> str:
    moment = _moment(seal.sealed_us)
    return "an impossible time" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
