"""Broadcasts that workers denied to unverified callers: one entry of the stream for many of them.

Each worker gets each broadcast, so the number of broadcasts of a kind is the greatest number that
one worker got. Anyone who can publish can cause any number of denials. So the entries hold no text
of the caller, and are left out, and counted, where the stream is over 60 % of its budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import redis

from taskyard.access import Action
from taskyard.records.job_keys import Keys
from taskyard.records.script_source import thin_at
from taskyard.records.verb_events import VerbEvent
from taskyard.store import Argument, Script

__all__ = ["WINDOW_S", "DeniedKind", "DeniedReport", "DeniedReports"]

WINDOW_S: Final = 600
"""For how long the workers' counts of a kind are compared, from its first denial on."""
_LEFT_OUT: Final = "denied_verb"
# A worker's field has its count and its last report. A report whose reply was lost comes again
# under the same number and changes nothing. The entry is appended before the counts are written,
# so that a refusal leaves all of them as they were.
# KEYS: counts of the kind, stream, gaps. ARGV: worker, number of the report, denials, window (ms),
# length of the stream from which on entries are left out, their name, fields of the entry.
_COUNT: Final = Script("""
local field = 'worker ' .. ARGV[1]
local stored = redis.call('HMGET', KEYS[1], field, 'counted')
local mine, last = string.match(stored[1] or '0 ', '^(%d+) (.*)$')
if last == ARGV[2] then return 0 end
mine = (tonumber(mine) or 0) + ARGV[3]
local counted = tonumber(stored[2] or 0)
local new = string.format('%.0f', mine - counted)
if mine > counted then
  if redis.call('XLEN', KEYS[2]) >= tonumber(ARGV[5]) then
    redis.call('HINCRBY', KEYS[3], ARGV[6], new)
  else
    redis.call('XADD', KEYS[2], '*', 'count', new, unpack(ARGV, 7))
  end
end
mine = string.format('%.0f', mine)
redis.call('HSET', KEYS[1], field, mine .. ' ' .. ARGV[2], 'counted',
           string.format('%.0f', math.max(tonumber(mine), counted)))
if not stored[2] then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
return tonumber(new)
""")


@dataclass(frozen=True, slots=True)
class DeniedKind:
    """Denials that are counted together: a verb, a cause, and the workers it was sent to."""

    verb: Action
    code: str
    target: str = ""

    def __str__(self) -> str:
        """Return the kind as a part of a key."""
        return f"{self.verb.value}:{self.code}:{self.target}"


@dataclass(frozen=True, slots=True)
class DeniedReport:
    """`count` denials of a kind at one worker; `number` is this report's own."""

    kind: DeniedKind
    worker: str
    at_us: int
    count: int
    number: str


class DeniedReports:
    """Writes workers' reports; `budget` is the number of events that the stream may have."""

    def __init__(self, client: redis.Redis, namespace: str, budget: int) -> None:
        self._client, self._keys, self._thin_at = client, Keys(namespace), thin_at(budget)

    def write(self, report: DeniedReport) -> None:
        """Add a report, and append what no other worker has counted; raises redis-py's errors.

        A report may be written again.
        """
        kind = report.kind
        event = VerbEvent(kind.verb, report.worker, report.at_us, kind.code)
        head: list[Argument] = [report.worker, report.number, report.count, WINDOW_S * 1000]
        fields = {name: value for name, value in event.fields().items() if name != "count"}
        rest: list[Argument] = [part for pair in fields.items() for part in pair]
        keys = [self._keys.denied(str(kind)), self._keys.lifecycle, self._keys.gaps]
        _COUNT(self._client, keys, [*head, self._thin_at, _LEFT_OUT, *rest])
