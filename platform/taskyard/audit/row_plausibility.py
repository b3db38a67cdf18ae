"""Check whether a row's id, transaction and time are possible after the seals before the row.

When a seal was written, every transaction below its `closed_below` had ended, so the rows of these
transactions are in this seal or in an earlier one. A transaction from its `next_transaction` on
began after the seal: its rows have higher ids than all sealed rows, and their time is not before
the seal.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from taskyard.audit.seal_chain import Seal
from taskyard.audit.verify_findings import Kind

__all__ = ["Horizons", "Written"]

# Tolerance for a clock that was set back, or another clock after a failover.
_CLOCK_MAY_STEP_US: Final = 60_000_000


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


class Horizons:
    """The limits for later rows that follow from earlier seals.

    The limits use only seals of the current Postgres cluster, from the end of its first complete
    pass on. Before that, a row may have the transaction id of another cluster.
    """

    def __init__(self) -> None:
        self._cluster = ""
        self._closed: tuple[int, int] | None = None  # transaction, seal
        self._last_id = 0
        # Both ascend; a seal with a higher number that a later one undercuts is removed.
        self._numbers: list[int] = []
        self._moments: list[_Moment] = []

    def enter(self, cluster: str) -> None:
        """Prepare for seals of another `cluster`: forget the transaction ids of the one before."""
        if cluster != self._cluster:
            self._cluster, self._closed = cluster, None
            self._numbers, self._moments = [], []

    def add(self, seal: Seal) -> None:
        """Add this seal's limits; its own rows were checked before."""
        self._last_id = max(self._last_id, *seal.row_ids, 0)
        if seal.closed_below is not None:
            before = 0 if self._closed is None else self._closed[0]
            self._closed = (max(before, seal.closed_below), seal.seq)
        if self._closed is None:
            return
        while self._numbers and self._numbers[-1] >= seal.next_transaction:
            del self._numbers[-1], self._moments[-1]
        self._numbers.append(seal.next_transaction)
        self._moments.append(_Moment(seal.seq, self._last_id, seal.sealed_us))

    def contradictions(self, row: Written) -> Iterator[tuple[Kind, int]]:
        """Yield each contradiction between a row and earlier seals, with the seal's number."""
        if self._closed is not None and row.transaction < self._closed[0]:
            yield Kind.INSERTED, self._closed[1]
            return
        place = bisect_right(self._numbers, row.transaction)
        if not place:
            return
        moment = self._moments[place - 1]
        if row.row_id <= moment.last_id:
            yield Kind.INSERTED, moment.seq
        if (
            row.performed_us is not None
            and row.performed_us < moment.sealed_us - _CLOCK_MAY_STEP_US
        ):
            yield Kind.BACKDATED, moment.seq
