"""The cause of a job's current state, as opposed to what an earlier attempt left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from taskyard.jobs.states import State

__all__ = ["with_current_cause"]

_CAUSED: Final = frozenset({State.RETRYING, State.DEAD_LETTERED, State.FAILED})
_CAUSE: Final = ("code", "category", "letter_id", "error")


def with_current_cause(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return `row`, without its cause where the cause does not explain the current state.

    The ledger keeps the last cause that was reported; a job that has been replayed, or whose retry
    succeeded, has none. `taskyard jobs show` has every attempt's own.
    """
    if State(row["state"]) in _CAUSED:
        return dict(row)
    return {**row, **dict.fromkeys(name for name in _CAUSE if name in row)}
