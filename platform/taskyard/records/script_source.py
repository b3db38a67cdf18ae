"""Build a script's source: Python's tables, the shared prelude, and the script's own lines.

Alone because only here the scripts get the state table.
"""

from __future__ import annotations

from typing import Final

from taskyard.clock import us_of
from taskyard.jobs.states import TERMINAL, TRANSITIONS
from taskyard.records.job_record import HISTORY_LINES
from taskyard.settings import Settings
from taskyard.store import read_lua
from taskyard.switches import IN_FORCE_LUA

__all__ = ["VERBS", "script_source", "thin_at"]

VERBS: Final = ("cancel", "abort", "force_complete", "reroute")
"""The scripts of operators' verbs, which share their first steps."""

_ASK_SWITCHES: Final = frozenset({"admit", "begin"})
_PACKAGE: Final = "taskyard.records"
# An operator's ending is kept as long until a worker has seen the job's message.
_KEEP_S: Final = 30 * 24 * 3600
# Above this share of its budget the stream gets only failures.
_THIN_AT: Final = 0.6


def thin_at(stream_budget: int) -> int:
    """Return the length of the stream from which on only essential events are appended."""
    return int(stream_budget * _THIN_AT)


def script_source(name: str, settings: Settings) -> str:
    """Return the Lua source of the script `name`."""
    parts = ["prelude", name]
    if name in VERBS:
        parts.insert(1, "verb_steps")
    if name == "begin":
        parts.insert(1, "held_by_switch")
    switches = IN_FORCE_LUA if name in _ASK_SWITCHES else ""
    return _tables(settings) + switches + "".join(read_lua(_PACKAGE, part) for part in parts)


def _tables(settings: Settings) -> str:
    """Return the state table and the limits as Lua."""
    rows = ", ".join(f"['{source}:{event}']='{to}'" for (source, event), to in TRANSITIONS.items())
    ends = ", ".join(f"['{state}']=true" for state in sorted(TERMINAL))
    return (
        f"local TRANSITIONS = {{{rows}}}\nlocal TERMINAL = {{{ends}}}\n"
        f"local STREAM_THIN = {thin_at(settings.lifecycle_max_events)}\n"
        f"local HISTORY_LINES = {HISTORY_LINES}\n"
        f"local WINDOW_US = {us_of(settings.dedupe_window_s)}\n"
        f"local RESULT_TTL_MS = {settings.result_ttl_s * 1000}\n"
        f"local KEEP_US = {us_of(_KEEP_S)}\n"
    )
