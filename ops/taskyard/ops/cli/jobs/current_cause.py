"""The cause of a job's current state, without causes that earlier attempts left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from taskyard.jobs.states import State

__all__ = ["with_current_cause"]

_CAUSED: Final = frozenset({State.RETRYING, State.DEAD_LETTERED, State.FAILED})
_CAUSE: Final = ("code", "category", "letter_id", "error")


def with_current_cause(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return `row`, without its cause if the cause does not explain the current state.

    The ledger keeps the last cause that was reported; a job that was replayed, or whose retry
    succeeded, has none now. `taskyard jobs show` lists the cause of every attempt.
    """
    if State(row["state"]) in _CAUSED:
        return dict(row)
    return {**row, **dict.fromkeys(name for name in _CAUSE if name in row)}
