"""Check whether a row's id, transaction and time are possible after the seals before the row.

When a seal was written, every transaction below its `closed_below` had ended, so the rows of these
transactions are in this seal or in an earlier one. A transaction from its `next_transaction` on
began after the seal: its rows have higher ids than all sealed rows, and their time is not before
the seal.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from taskyard.audit.seal_chain import Seal
from taskyard.audit.verify_findings import Kind

__all__ = ["Horizons", "Written"]

# Tolerance for a clock that was set back, or another clock after a failover.
_CLOCK_MAY_STEP_US: Final = 60_000_000
# After a restore elsewhere, rows may come that the seals before do not have: those of transactions
# that were open then. A verb's transaction is much shorter than this.
_LONGEST_US: Final = 3600_000_000


@dataclass(frozen=True, slots=True)
class Written:
    """A row's id, transaction and time in microseconds; the time is None if it is invalid."""

    row_id: int
    transaction: int
    performed_us: int | None


@dataclass(frozen=True, slots=True)
class _Moment:
    seq: int
    last_id: int
    sealed_us: int


@dataclass(slots=True)
class _Limits:
    """The limits that follow from the seals of one cluster."""

    closed: tuple[int, int] | None = None
    """A transaction and a seal: all rows of transactions below it were sealed by then."""
    numbers: list[int] = field(default_factory=list)
    moments: list[_Moment] = field(default_factory=list)
    """`numbers` ascends: a seal is removed if a later seal has the same or a lower transaction."""


class Horizons:
    """What earlier seals imply for later rows: the lowest transaction, id and time.

    Transaction ids are compared only with seals of the same Postgres cluster, and only after a
    sealer has read all rows there once: until then, a row may have the transaction id of another
    cluster. The limits of a cluster apply again when the chain returns to it. A row's time is
    compared with the seals of all clusters.
    """

    def __init__(self) -> None:
        self._by_cluster: dict[str, _Limits] = {}
        self._limits = _Limits()
        self._last_id = 0
        self._last: _Moment | None = None
        self._elsewhere: _Moment | None = None
        self._cluster: str | None = None

    def enter(self, cluster: str) -> None:
        """Compare later rows with the limits of `cluster`, the Postgres cluster that wrote them."""
        if cluster == self._cluster:
            return
        self._cluster = cluster
        self._limits = self._by_cluster.setdefault(cluster, _Limits())
        self._elsewhere = _newer(self._elsewhere, self._last)

    def add(self, seal: Seal) -> None:
        """Add this seal's limits; its own rows were checked before."""
        limits = self._limits
        self._last_id = max(self._last_id, *seal.row_ids, 0)
        moment = _Moment(seal.seq, self._last_id, seal.sealed_us)
        self._last = _newer(self._last, moment)
        if seal.closed_below is not None:
            before = 0 if limits.closed is None else limits.closed[0]
            limits.closed = (max(before, seal.closed_below), seal.seq)
        if limits.closed is None:
            return
        while limits.numbers and limits.numbers[-1] >= seal.next_transaction:
            del limits.numbers[-1], limits.moments[-1]
        limits.numbers.append(seal.next_transaction)
        limits.moments.append(moment)

    def contradictions(self, row: Written) -> Iterator[tuple[Kind, int]]:
        """Yield each contradiction between a row and earlier seals, with the seal's number."""
        limits = self._limits
        if limits.closed is not None and row.transaction < limits.closed[0]:
            yield Kind.INSERTED, limits.closed[1]
        else:
            place = bisect_right(limits.numbers, row.transaction)
            if place:
                moment = limits.moments[place - 1]
                if row.row_id <= moment.last_id:
                    yield Kind.INSERTED, moment.seq
                if _is_before(row, moment, _CLOCK_MAY_STEP_US):
                    yield Kind.BACKDATED, moment.seq
                    return
        if self._elsewhere is not None and _is_before(row, self._elsewhere, _LONGEST_US):
            yield Kind.BACKDATED, self._elsewhere.seq


def _newer(one: _Moment | None, other: _Moment | None) -> _Moment | None:
    if one is None or other is None:
        return one or other
    return other if other.sealed_us > one.sealed_us else one


def _is_before(row: Written, moment: _Moment, tolerance_us: int) -> bool:
    return row.performed_us is not None and row.performed_us < moment.sealed_us - tolerance_us
