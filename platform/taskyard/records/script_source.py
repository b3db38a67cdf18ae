"""Build a script's source: Python's tables, the shared prelude, and the script's own lines.

Alone because only here the scripts get the state table.
"""

from __future__ import annotations

from typing import Final

from taskyard.jobs.states import TERMINAL, TRANSITIONS
from taskyard.records.job_record import HISTORY_LINES
from taskyard.store import read_lua

__all__ = ["script_source", "thin_at"]

_PACKAGE: Final = "taskyard.records"
# Above this share of its budget the stream gets only failures.
_THIN_AT: Final = 0.6


def thin_at(stream_budget: int) -> int:
    """Return the length of the stream from which on only essential events are appended."""
    return int(stream_budget * _THIN_AT)


def script_source(name: str, stream_budget: int) -> str:
    """Return the Lua source of the script `name`.

    `stream_budget` is the number of events that the stream may have.
    """
    return _tables(stream_budget) + "".join(read_lua(_PACKAGE, part) for part in ("prelude", name))


def _tables(stream_budget: int) -> str:
    """Return the state table and the limits as Lua."""
    rows = ", ".join(f"['{source}:{event}']='{to}'" for (source, event), to in TRANSITIONS.items())
    ends = ", ".join(f"['{state}']=true" for state in sorted(TERMINAL))
    return (
        f"local TRANSITIONS = {{{rows}}}\nlocal TERMINAL = {{{ends}}}\n"
        f"local STREAM_THIN = {thin_at(stream_budget)}\n"
        f"local HISTORY_LINES = {HISTORY_LINES}\n"
    )
