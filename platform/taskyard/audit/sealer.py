"""The sealer: every few seconds it puts committed rows that have no seal into a new seal.

A committed row never changes, so it can be sealed at once. Writers do not wait for the sealer, and
the sealer does not wait for writers. A running transaction may commit its rows later; the sealer
finds these rows by their transaction id. This id is not below the oldest transaction that was
running when the sealer last looked (`pg_snapshot_xmin`). Each seal is one transaction, so a sealer
that is killed at any point leaves a valid chain, and rows that are still unsealed.

A transaction id has a meaning only in one cluster of servers, and rows may be restored to another
cluster. So the first pass of a sealer reads every row, and so does the first pass in a new cluster
or after a failover.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, text

from taskyard.audit.canonical_bytes import ROW_SQL, in_microseconds, row_hash
from taskyard.audit.exported_heads import Head
from taskyard.audit.seal_chain import LOCK_SQL, Seal, append, cluster_of, follow, last_seal
from taskyard.database.outage_retry import repeat
from taskyard.wire.redacted_logs import logger

__all__ = ["EVERY_S", "Sealer", "Unsealed", "unsealed"]

log = logger(__name__)

EVERY_S: Final = 5.0
_BATCH: Final = 1000  # 40 kB a seal
_LOCK: Final = text(f"SELECT pg_try_advisory_xact_lock({LOCK_SQL})")
_LONGEST_WAIT_S: Final = 60
# An estimate that is cheap: rows above the last sealed id. Late rows of lower ids are few.
_WAITS: Final = text(
    "SELECT count(*), min(performed_at), "
    "coalesce(extract(epoch FROM clock_timestamp() - min(performed_at))::bigint, 0) "
    "FROM operator_audit_log WHERE id > coalesce((SELECT last_id FROM audit_seals "
    "WHERE seq > 0 AND row_ids <> '{}' ORDER BY seq DESC LIMIT 1), 0)"
)
_TIMELINE: Final = text("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)")
# The last row that another cluster sealed. A forged seal may name a row that does not exist yet, so
# the result is never above the newest row.
_FLOOR: Final = text(
    "SELECT CASE WHEN max(last_id) IS NULL THEN 0 "
    "ELSE least(max(last_id), (SELECT max(id) FROM operator_audit_log)) END "
    "FROM audit_seals WHERE seq > 0 AND cluster <> :cluster"
)
_HASH: Final = text(
    "SELECT (SELECT min(seq) FROM audit_seals WHERE seq > 0), "
    "(SELECT hash FROM audit_seals WHERE seq = :seq)"
)
# Rows and horizon come from one snapshot, since they come from one statement. The horizon is
# returned even without rows.
_UNSEALED: Final = text(
    f"""
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS horizon,
        {in_microseconds("clock_timestamp()")} AS now_us, unsealed.*
    FROM (SELECT 1) AS always LEFT JOIN LATERAL (
        SELECT {ROW_SQL} FROM operator_audit_log AS written
        WHERE written.id > :after AND written.transaction_id >= :since
            AND NOT EXISTS (
                SELECT FROM audit_seals AS seal, unnest(seal.row_ids) AS sealed(id)
                WHERE seal.next_transaction > :since AND seal.last_id > :after
                    AND seal.seq > 0 AND sealed.id = written.id)
        ORDER BY written.id LIMIT {_BATCH + 1}) AS unsealed ON true
    ORDER BY unsealed.id::bigint
    """  # noqa: S608 - constants
)
# Taken after the rows were read: every transaction with an id by then has a lower one.
_NEXT: Final = text("SELECT pg_current_xact_id()::text")


@dataclass(frozen=True, slots=True)
class Unsealed:
    """Rows that wait for a seal: how many, when the oldest was written, how long it has waited."""

    rows: int
    since: datetime | None
    waits_s: int


def unsealed(connection: Connection) -> Unsealed:
    """Return what waits for a seal; an estimate, which costs little however long the log is."""
    return Unsealed(*connection.execute(_WAITS).one())


@dataclass(frozen=True, slots=True)
class _Position:
    """Where the next step continues: after the row `after`, from the transaction `since` on.

    `timeline` changes with a failover: then the ids of lost transactions are used again. `floor` is
    the last row that another cluster sealed. `whole`: this pass reads all rows, and `horizon` is
    the horizon of its first query.
    """

    cluster: str
    timeline: str
    floor: int
    after: int
    since: int
    whole: bool
    horizon: int | None = None


class Sealer:
    """Seals committed rows; of several sealers in one schema only one works at a time."""

    def __init__(
        self, engine: Engine, export: Callable[[Seal], None], exported: Head | None = None
    ) -> None:
        """Set `export`, which gets the head at the start and after each pass that wrote a seal.

        `exported` is the last exported head. If the chain does not contain this head, the log
        reports it.
        """
        self._engine, self._export = engine, export
        self._expected = exported
        self._position: _Position | None = None
        self._head: Seal | None = None
        self._warned = False

    def run(self, stop: threading.Event) -> None:
        """Seal every `EVERY_S` until `stop` is set; while a server is unreachable, try again."""

        def step() -> None:
            self.run_once()
            stop.wait(EVERY_S)

        repeat("audit_sealer", step, stop)

    def run_once(self) -> int:
        """Seal all committed rows and export the head if it is new; return the number of rows."""
        rows, more = 0, True
        while more:
            sealed, more = self._step()
            rows += sealed
        head = self._head
        if head is not None and (self._expected is None or self._expected.hash != head.hash):
            self._export(head)
            self._expected = Head(head.seq, head.hash)
        return rows

    def _step(self) -> tuple[int, bool]:
        """Write at most one seal; return how many rows it has, and whether more rows follow."""
        with self._engine.begin() as connection:
            if not connection.scalar(_LOCK):
                self._warn_of_waiting_rows(connection)
                return 0, False
            self._warned = False
            position = self._where(connection)
            found = _read(connection, position)
            head = self._extend(connection, position, found)
        # Only committed seals count.
        self._position, self._head = found.next_position(position), head
        return len(found.batch), found.more

    def _warn_of_waiting_rows(self, connection: Connection) -> None:
        """Warn, once until sealing works again, if rows wait while another session has the lock.

        Another sealer has it for a moment. Any role can hold an advisory lock.
        """
        waits_s = unsealed(connection).waits_s
        if waits_s < _LONGEST_WAIT_S:
            self._warned = False
        elif not self._warned:
            self._warned = True
            log.warning(
                "rows of the audit log wait for a seal, the oldest for %d s: another session holds "
                "the sealer's lock. Sealing is tried again every %d s. Find the session in "
                "pg_locks (locktype = 'advisory') and end it, if it is not a relay",
                waits_s,
                EVERY_S,
                extra={"action": "audit_not_sealed", "waits_s": waits_s},
            )

    def _extend(self, connection: Connection, position: _Position, found: _Found) -> Seal | None:
        last = last_seal(connection)
        if not found.batch:
            return last
        closed_below = None if found.more else found.closed_below(position)
        made = _seal(connection, last, position.cluster, found, closed_below)
        append(connection, made)
        return made

    def _where(self, connection: Connection) -> _Position:
        """Return where the previous step ended, or the beginning if the chain is another one."""
        cluster, timeline = cluster_of(connection), str(connection.scalar(_TIMELINE))
        known, same = self._position, self._is_same_chain(connection)
        if known is not None and same and (known.cluster, known.timeline) == (cluster, timeline):
            return known
        floor = int(connection.scalar(_FLOOR, {"cluster": cluster}) or 0)
        return _Position(cluster, timeline, floor=floor, after=0, since=0, whole=True)

    def _is_same_chain(self, connection: Connection) -> bool:
        """Return whether the chain contains the exported head; if not, report it once."""
        if self._expected is None:
            return True
        first, found = connection.execute(_HASH, {"seq": self._expected.seq}).one()
        if found is not None and bytes(found) == self._expected.hash:
            return True
        if first is not None and self._expected.seq is not None and self._expected.seq < first:
            return True  # it was archived since
        log.error(
            "the chain of the audit log does not contain the exported head %s: seals were "
            "changed or removed, or Postgres was restored to an earlier moment. Sealing continues. "
            "To see what differs, run: taskyard audit verify --head %s",
            self._expected,
            self._expected,
            extra={"action": "audit_chain_changed", "head": str(self._expected)},
        )
        self._expected = None
        return False


@dataclass(frozen=True, slots=True)
class _Found:
    """The result of one query: the rows to seal now, whether more follow, horizon and time."""

    batch: Sequence[Mapping[str, Any]]
    more: bool
    horizon: int
    now_us: int

    def closed_below(self, position: _Position) -> int:
        """Return the transaction below which every row is sealed, once these rows are sealed.

        A pass over all rows follows their ids. A row that is committed later, with a lower id, is
        left to the next pass, so the horizon of the pass's first query counts.
        """
        return self.horizon if position.horizon is None else position.horizon

    def next_position(self, position: _Position) -> _Position:
        """Return where the next query begins."""
        closed_below = self.closed_below(position)
        if not self.more:
            after = position.floor
            return replace(position, after=after, since=closed_below, whole=False, horizon=None)
        if position.whole:
            return replace(position, after=int(self.batch[-1]["id"]), horizon=closed_below)
        return position


def _read(connection: Connection, position: _Position) -> _Found:
    limits = {"after": position.after, "since": position.since}
    found = connection.execute(_UNSEALED, limits).mappings().all()
    rows = [dict(row) for row in found if row["id"] is not None]
    horizon, now_us = int(found[0]["horizon"]), int(found[0]["now_us"])
    return _Found(rows[:_BATCH], len(rows) > _BATCH, horizon, now_us)


def _seal(
    connection: Connection,
    last: Seal | None,
    cluster: str,
    found: _Found,
    closed_below: int | None,
) -> Seal:
    """Return the seal after `last`; its transaction is newer than those of all its rows."""
    own = int(str(connection.scalar(_NEXT)))
    # Restored rows from another cluster may have transaction ids that are in the future here.
    youngest = max(int(row["transaction_id"]) for row in found.batch)
    return follow(
        last,
        cluster=cluster,
        sealed_us=found.now_us,
        closed_below=closed_below,
        next_transaction=max(own, youngest + 1),
        row_ids=tuple(int(row["id"]) for row in found.batch),
        row_hashes=b"".join(row_hash(row) for row in found.batch),
    )
