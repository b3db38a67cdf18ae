"""A script's source: the tables that Python owns, what all scripts share, and its own lines.

Alone because only here do the scripts meet the state table.
"""

from __future__ import annotations

from typing import Final

from taskyard.jobs.states import TERMINAL, TRANSITIONS
from taskyard.records.record import HISTORY_LINES
from taskyard.store import read_lua

__all__ = ["script_source"]

_PACKAGE: Final = "taskyard.records"
# The stream thins to failures at this share of its budget.
_THIN_AT: Final = 0.6


def script_source(name: str, stream_budget: int) -> str:
    """The Lua of the script `name`; `stream_budget` is in events."""
    return _tables(stream_budget) + "".join(read_lua(_PACKAGE, part) for part in ("prelude", name))


def _tables(stream_budget: int) -> str:
    """Return the state table and the limits as Lua."""
    rows = ", ".join(f"['{source}:{event}']='{to}'" for (source, event), to in TRANSITIONS.items())
    ends = ", ".join(f"['{state}']=true" for state in sorted(TERMINAL))
    return (
        f"local TRANSITIONS = {{{rows}}}\nlocal TERMINAL = {{{ends}}}\n"
        f"local STREAM_THIN = {int(stream_budget * _THIN_AT)}\n"
        f"local HISTORY_LINES = {HISTORY_LINES}\n"
    )
