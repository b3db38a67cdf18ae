"""What of a ledger's row is the job's present; what an earlier attempt left is its history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from taskyard.jobs.states import State

__all__ = ["present"]

_CAUSED: Final = frozenset({State.RETRYING, State.DEAD_LETTERED, State.FAILED})
_CAUSE: Final = ("code", "category", "letter_id", "error")


def present(row: Mapping[str, Any]) -> dict[str, Any]:
    """`row` with its cause only where that is why the job is in this state.

    The ledger keeps the last cause it was told; a job that has been replayed, or whose retry
    succeeded, has none. `taskyard jobs show` has every attempt's own.
    """
    if State(row["state"]) in _CAUSED:
        return dict(row)
    return {**row, **dict.fromkeys(name for name in _CAUSE if name in row)}
