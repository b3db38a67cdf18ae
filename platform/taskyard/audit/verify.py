"""Verify the audit log: its rows, its seals, and the exported heads.

Each row is compared with its seal, each seal with the previous seal, and the chain with the
exported heads. The hashes need no secret, so the owner of the tables can change rows and compute a
new chain over them. Such a chain does not contain a head that was exported before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, text

from taskyard.audit.archive import Sealed, read_archive
from taskyard.audit.archiver import rows_of_seals
from taskyard.audit.canonical_bytes import FORM, HASH_BYTES, in_microseconds, row_hash
from taskyard.audit.exported_heads import Head
from taskyard.audit.row_plausibility import Horizons, Written
from taskyard.audit.seal_chain import GENESIS, Seal, cluster_of, seals_after
from taskyard.audit.verify_findings import Kind, Report
from taskyard.audit.verify_tables import faults_of_tables

__all__ = ["verify", "verify_in"]

_UNSEALED: Final = text(
    f"""
    SELECT id, transaction_id,
        {in_microseconds("performed_at")} AS performed_us
    FROM operator_audit_log AS written WHERE NOT EXISTS (
        SELECT FROM audit_seals AS seal, unnest(seal.row_ids) AS sealed(id)
        WHERE seal.seq > 0 AND sealed.id = written.id)
    ORDER BY id
    """  # noqa: S608 - constant
)
_BEFORE_ALL: Final = -(2**63)
_STAYS: Final = timedelta(days=30)  # as in `taskyard_remove_archived_audit`
_NO_HEAD: Final = (
    "not compared with an exported head, so a completely recomputed chain would not be "
    "noticed. Give a head with --head, from the relay's log or from the file that "
    "TASKYARD_AUDIT_HEAD_FILE names"
)


def verify(
    engine: Engine, heads: Sequence[Head], archives: Sequence[Path] = (), *, archiving: bool = True
) -> Report:
    """Compare rows, seals and exported heads, in one snapshot; the sealer may work meanwhile.

    The seals of `archives` come before the seals in Postgres. Without `archiving`, a seal that
    says up to where the log was archived is not believed. Raises `InvalidPayload` for a file that
    is not an archive.
    """
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as connection:
        return verify_in(connection, heads, archives, archiving=archiving)


def verify_in(
    connection: Connection,
    heads: Sequence[Head],
    archives: Sequence[Path] = (),
    *,
    archiving: bool = True,
) -> Report:
    """Verify in the caller's transaction, which must have one snapshot."""
    return _Verification(connection, heads, archiving=archiving).run(archives)


class _Verification:
    """One pass along the chain: the archives, then Postgres."""

    def __init__(self, connection: Connection, heads: Sequence[Head], *, archiving: bool) -> None:
        self._connection, self._archiving = connection, archiving
        self._numbered = _by_number(heads)
        self._sealed_at = {
            head.seq: head.sealed_at
            for head in heads
            if head.seq is not None and head.sealed_at is not None
        }
        self._markers: list[Seal] = []
        self._hashes = {head.hash for head in heads if head.seq is None}
        self._any_head = bool(heads)
        self._report = Report()
        self._horizons = Horizons()
        self._previous: Seal | None = None
        self._gaps: list[tuple[int, int]] = []
        self._archived_through: Seal | None = None
        self._archived: dict[int, bytes] = {}

    def run(self, archives: Sequence[Path]) -> Report:
        report = self._report
        for path in sorted(archives, key=_first_seal):
            for part in read_archive(path):
                self._take_archived(part)
        for page in seals_after(self._connection, _BEFORE_ALL):
            rows = rows_of_seals(self._connection, page)
            for seal in page:
                if seal.seq < 1:
                    # Rows that it names would count as sealed, and no other seal has them.
                    named = f"seal {seal.seq} is none: the chain begins with 1"
                    report.add(Kind.CHAIN_BROKEN, named, seal=seal.seq)
                elif seal.seq in self._archived:
                    self._compare_archived(seal, rows)
                else:
                    self._take(seal, rows)
        self._check_gaps()
        self._check_heads_left()
        for found in faults_of_tables(self._connection):
            report.add(found.kind, found.text, row=found.row, seal=found.seal)
        self._check_unsealed()
        if not self._any_head:
            report.notes.append(_NO_HEAD)
        return report

    def _take_archived(self, part: Sealed) -> None:
        """Check the next archived seal; two archives that overlap must have the same seal."""
        known = self._archived.get(part.seal.seq)
        if known is None:
            self._archived[part.seal.seq] = part.seal.hash
            self._report.archived += len(part.seal.row_ids)
            self._take(part.seal, part.rows)
        elif part.seal.digest() != known:
            self._differs(part.seal, "in another archive")

    def _take(self, seal: Seal, rows: Mapping[int, Mapping[str, str | None]]) -> None:
        self._check_link(seal)
        self._check_head(seal)
        self._horizons.enter(seal.cluster)
        for row_id, sealed in seal.rows():
            row = rows.get(row_id)
            self._check_row(seal, row_id, sealed, row)
            if row is not None:
                transaction = _number(row["transaction_id"]) or 0
                written = Written(row_id, transaction, _number(row["performed_at"]))
                self._check_place(written, f"row {row_id}, in seal {seal.seq},")
        self._horizons.add(seal)
        self._previous = seal

    def _check_link(self, seal: Seal) -> None:
        report, previous = self._report, self._previous
        report.seals += 1
        report.head = Head(seal.seq, seal.hash)
        if seal.digest() != seal.hash or len(seal.row_hashes) != HASH_BYTES * len(seal.row_ids):
            report.add(Kind.SEAL_CHANGED, f"seal {seal.seq} was changed", seal=seal.seq)
        if seal.archived_through is not None:
            self._archived_through = seal
            self._markers.append(seal)
        if previous is not None:
            self._check_follows(seal, previous)
        elif seal.seq > 1:
            self._gaps.append((1, seal.seq - 1))
        elif seal.prev_hash != GENESIS:
            report.add(Kind.CHAIN_BROKEN, "seal 1 is not the first of its chain", seal=1)

    def _check_follows(self, seal: Seal, previous: Seal) -> None:
        report, number = self._report, previous.seq + 1
        if seal.seq != number and previous.seq in self._archived:
            self._gaps.append((number, seal.seq - 1))
        elif seal.seq != number:
            report.add(Kind.CHAIN_BROKEN, f"{_seals(number, seal.seq - 1)} gone", seal=number)
        elif seal.prev_hash != previous.hash:
            named = f"seal {seal.seq} does not follow from seal {number - 1}"
            report.add(Kind.CHAIN_BROKEN, named, seal=seal.seq)
        if previous.cluster != seal.cluster:
            report.notes.append(
                f"from seal {seal.seq} on, {_day(seal)}, the chain was written by other servers "
                f"(system identifier {seal.cluster} after {previous.cluster}): a restore"
            )

    def _compare_archived(self, seal: Seal, rows: Mapping[int, Mapping[str, str | None]]) -> None:
        """Compare the archived seals that are still in Postgres: both copies must be the same."""
        if seal.digest() != self._archived[seal.seq]:
            self._differs(seal, "in an archive")
        for row_id, sealed in seal.rows():
            self._check_row(seal, row_id, sealed, rows.get(row_id))

    def _differs(self, seal: Seal, where: str) -> None:
        named = f"seal {seal.seq} has another hash {where}"
        self._report.add(Kind.HEAD_DIFFERS, named, seal=seal.seq)

    def _check_gaps(self) -> None:
        """Check that seals before the first one in Postgres are missing because they were archived.

        A later seal says so.
        """
        marker = self._archived_through
        for first, last in self._gaps:
            if marker is None or (marker.archived_through or 0) < last:
                named = f"{_seals(first, last)} gone, and no seal says that they were archived"
                self._report.add(Kind.CHAIN_BROKEN, named, seal=first)
            elif not self._archiving:
                named = (
                    f"{_seals(first, last)} gone; seal {marker.seq} of {_day(marker)} says that "
                    "they were archived, but audit_retention_days is 0. If relays archive, give "
                    "the archives with --archive, or set TASKYARD_AUDIT_RETENTION_DAYS as there"
                )
                self._report.add(Kind.CHAIN_BROKEN, named, seal=first)
            else:
                self._report.notes.append(
                    f"{_seals(first, last)} archived, says seal {marker.seq} of {_day(marker)}, "
                    "and not compared. Give their archives with --archive"
                )

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
        absent = [seq for seq in self._numbered if self._is_archived(seq)]
        for seq in absent:
            del self._numbered[seq]
            self._check_age(seq)
        if absent:
            heads = "head is" if len(absent) == 1 else "heads are"
            self._report.notes.append(
                f"{len(absent)} exported {heads} not compared, because the seals were archived"
            )
        for seq in sorted(self._numbered):
            named = (
                f"seal {seq}, whose head was exported, is missing; the chain ends at seal {last}"
            )
            self._report.add(Kind.HEAD_MISSING, named, seal=seq)
        for expected in sorted(self._hashes):
            named = f"no seal has the exported head {expected.hex()}"
            self._report.add(Kind.HEAD_MISSING, named)

    def _check_age(self, seq: int) -> None:
        """Check that the seal of an exported head was old when it was archived.

        The owner of the tables can write that young seals were archived, and remove them.
        """
        moment = self._sealed_at.get(seq)
        by = next((each for each in self._markers if (each.archived_through or 0) >= seq), None)
        if moment is None or by is None:
            return
        archived_at = _moment(by.sealed_us)
        if archived_at is None or moment > archived_at - _STAYS:
            named = (
                f"seal {seq} of {moment:%Y-%m-%d %H:%M:%S} UTC is gone; seal {by.seq} of "
                f"{_day(by)} says that it was archived, but a seal is archived after "
                f"{_STAYS.days} days"
            )
            self._report.add(Kind.CHAIN_BROKEN, named, seal=seq)

    def _is_archived(self, seq: int) -> bool:
        """Return whether another seal says that the seals of this gap were archived."""
        marker = self._archived_through
        if marker is None or not self._archiving:
            return False
        through = marker.archived_through or 0
        return any(first <= seq <= last <= through for first, last in self._gaps)

    def _check_row(
        self, seal: Seal, row_id: int, sealed: bytes, row: Mapping[str, str | None] | None
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

    def _check_place(self, written: Written, named: str) -> None:
        for kind, seal in self._horizons.contradictions(written):
            match kind:
                case Kind.INSERTED:
                    what = "did not exist when its place in the log was sealed"
                case _:
                    what = "has a time before that seal, but was written after it"
            text = f"{named} {what} (seal {seal})"
            self._report.add(kind, text, row=written.row_id, seal=seal)

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


def _first_seal(path: Path) -> int:
    return next((part.seal.seq for part in read_archive(path)), 0)


def _seals(first: int, last: int) -> str:
    return f"seal {first} is" if first == last else f"seals {first} to {last} are"


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
