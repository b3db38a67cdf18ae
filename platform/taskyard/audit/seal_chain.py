"""The chain of seals: each holds the hashes of its rows, and the hash of the previous seal.

A seal lists its rows one by one, not as a range: ids have gaps after rollbacks, and a long
transaction commits lower ids after a shorter one has committed higher ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, insert, text

from taskyard.audit.canonical_bytes import FORM, HASH_BYTES, digest, in_microseconds
from taskyard.database.tables import SEALS

__all__ = [
    "GENESIS",
    "LOCK_SQL",
    "SEAL_SQL",
    "Seal",
    "append",
    "cluster_of",
    "follow",
    "last_seal",
    "read_seal",
    "seals_after",
]

GENESIS: Final = bytes(HASH_BYTES)
"""The previous hash of the first seal."""
# An advisory lock: one session at a time extends the chain of a schema. If two do all the same, the
# unique number of a seal refuses the second.
LOCK_SQL: Final = "hashtextextended('taskyard.audit.sealer ' || current_schema(), 0)"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PAGE: Final = 100
SEAL_SQL: Final = (
    f"seq, form, cluster, {in_microseconds('sealed_at')} AS sealed_us, "
    "closed_below, next_transaction, row_ids, row_hashes, archived_through, prev_hash, hash"
)


@dataclass(frozen=True, slots=True)
class Seal:
    """One seal of the audit log.

    All fields except `hash` are hashed into `hash`. `cluster` is the system identifier of the
    Postgres cluster that wrote the seal: a transaction id has a meaning only in its own cluster,
    and the rows may have been restored to another one. `closed_below`: every row of a transaction
    with a lower id is in this seal or an earlier one; None if the next seal has more rows.
    `next_transaction`: every row that was committed before this seal has a lower transaction id.
    `archived_through`: the rows of all seals up to this number were archived and removed.
    """

    seq: int
    form: int
    cluster: str
    sealed_us: int
    closed_below: int | None
    next_transaction: int
    row_ids: tuple[int, ...]
    row_hashes: bytes
    archived_through: int | None
    prev_hash: bytes
    hash: bytes = b""

    def digest(self) -> bytes:
        """Return the hash of all fields except `hash`."""
        return digest(
            f"taskyard.audit.seal {self.form}",
            str(self.seq),
            self.cluster,
            str(self.sealed_us),
            None if self.closed_below is None else str(self.closed_below),
            str(self.next_transaction),
            ",".join(map(str, self.row_ids)),
            self.row_hashes,
            None if self.archived_through is None else str(self.archived_through),
            self.prev_hash,
        )

    @property
    def sealed_at(self) -> datetime:
        """Return when the seal was written, by Postgres' clock."""
        return _EPOCH + timedelta(microseconds=self.sealed_us)

    def rows(self) -> Iterator[tuple[int, bytes]]:
        """Return the id and the hash of each row.

        An id without a hash, or a hash without an id, is left out; `digest` detects this fault.
        """
        steps = range(0, len(self.row_hashes), HASH_BYTES)
        hashes = [self.row_hashes[start : start + HASH_BYTES] for start in steps]
        return zip(self.row_ids, hashes, strict=False)


def follow(
    last: Seal | None,
    *,
    cluster: str,
    sealed_us: int,
    closed_below: int | None,
    next_transaction: int,
    row_ids: tuple[int, ...],
    row_hashes: bytes,
    archived_through: int | None = None,
) -> Seal:
    """Return the seal that follows `last`."""
    made = Seal(
        seq=1 if last is None else last.seq + 1,
        form=FORM,
        cluster=cluster,
        sealed_us=sealed_us,
        closed_below=closed_below,
        next_transaction=next_transaction,
        row_ids=row_ids,
        row_hashes=row_hashes,
        archived_through=archived_through,
        prev_hash=GENESIS if last is None else last.hash,
    )
    return replace(made, hash=made.digest())


def append(connection: Connection, seal: Seal) -> None:
    """Append a seal in the caller's transaction.

    Two seals with one number cannot both be committed.
    """
    connection.execute(
        insert(SEALS).values(
            seq=seal.seq,
            form=seal.form,
            cluster=seal.cluster,
            sealed_at=seal.sealed_at,
            closed_below=seal.closed_below,
            next_transaction=seal.next_transaction,
            row_ids=list(seal.row_ids),
            row_hashes=seal.row_hashes,
            last_id=max(seal.row_ids, default=0),
            archived_through=seal.archived_through,
            prev_hash=seal.prev_hash,
            hash=seal.hash,
        )
    )


def cluster_of(connection: Connection) -> str:
    """Return the system identifier of these servers."""
    return str(connection.scalar(text("SELECT system_identifier FROM pg_control_system()")))


def last_seal(connection: Connection) -> Seal | None:
    """Return the last seal of the chain."""
    query = text(f"SELECT {SEAL_SQL} FROM audit_seals WHERE seq > 0 ORDER BY seq DESC LIMIT 1")  # noqa: S608 - constant
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else read_seal(dict(row))


def seals_after(connection: Connection, seq: int) -> Iterator[list[Seal]]:
    """Yield the seals with higher numbers in their order, a page at a time."""
    query = text(f"SELECT {SEAL_SQL} FROM audit_seals WHERE seq > :seq ORDER BY seq LIMIT {_PAGE}")  # noqa: S608 - constant
    while True:
        rows = connection.execute(query, {"seq": seq}).mappings().all()
        if not rows:
            return
        page = [read_seal(dict(row)) for row in rows]
        yield page
        seq = page[-1].seq


def read_seal(row: Mapping[str, Any]) -> Seal:
    """Parse a row read with `SEAL_SQL`, whatever it contains."""
    # An infinite time is invalid: -1 in its place gives another hash.
    sealed_us = int(row["sealed_us"]) if row["sealed_us"].lstrip("-").isdigit() else -1
    return Seal(
        seq=row["seq"],
        form=row["form"],
        cluster=row["cluster"],
        sealed_us=sealed_us,
        closed_below=row["closed_below"],
        next_transaction=row["next_transaction"],
        row_ids=tuple(found if isinstance(found, int) else -1 for found in row["row_ids"]),
        row_hashes=bytes(row["row_hashes"]),
        archived_through=row["archived_through"],
        prev_hash=bytes(row["prev_hash"]),
        hash=bytes(row["hash"]),
    )
