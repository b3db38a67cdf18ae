"""Control commands of Celery in the lifecycle stream: one request and one outcome for a broadcast.

Every worker gets the broadcast, and Redis keeps which of them came first. The mirror writes the
audit rows. A command of a verified caller is essential; one without a credential is left out, and
counted, where the stream is over 60 % of its budget.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Self

import redis

from taskyard.access import Action
from taskyard.access.verify_credential import CLOCKS_MAY_DIFFER, LONGEST_CREDENTIAL
from taskyard.clock import from_us, us_of
from taskyard.records.job_keys import Keys
from taskyard.records.script_source import thin_at
from taskyard.records.verb_events import (
    ANNOUNCED_FOR,
    VERB_FIELD,
    ahead,
    check_worker,
    clocks_differ,
)
from taskyard.store import Argument, Script

__all__ = [
    "COMMAND_FIELD",
    "LONGEST_ARGUMENTS",
    "LONGEST_JOBS",
    "CommandEvent",
    "CommandEvents",
    "Opened",
]

COMMAND_FIELD: Final = b"command"
"""Entries of verbs with this field are control commands of Celery."""
LONGEST_ARGUMENTS: Final = 65_536
"""The longest JSON, in characters, of an audited command's arguments."""
LONGEST_JOBS: Final = 1_048_576
"""The longest JSON, in characters, of the outcomes of a command's jobs."""
_LONGEST_OUTCOME: Final = 2_000
# Longer than workers accept a credential: a copy of a signed command, sent again, still meets the
# entry of the first.
_KEPT_MS: Final = 2 * 3600 * 1000
_LEFT_OUT: Final = "unverified_command"
_REQUESTED: Final = "requested"
_OUTCOME: Final = "outcome"
_AHEAD: Final = -2
# The entry is appended first: where that fails, nothing else is written.
# KEYS: the command, stream, gaps, announced workers. ARGV: field, its value, worker, time of the
# event, how far clocks may differ (0 for any), for how long names are kept, for how long the
# command is kept (ms), length of the stream from which on entries are left out (0 for none), their
# name, fields of the entry. Returns whether the worker is new to the command, and its outcome.
_APPEND: Final = Script("""
local time = redis.call('TIME')
local now, at, differ = time[1] * 1000000 + time[2], tonumber(ARGV[4]), tonumber(ARGV[5])
if differ > 0 and math.abs(now - at) > differ then return {-1, ''} end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  local limit = tonumber(ARGV[8])
  if limit > 0 and redis.call('XLEN', KEYS[2]) >= limit then
    redis.call('HINCRBY', KEYS[3], ARGV[9], 1)
  else
    local id = redis.call('XADD', KEYS[2], '*', unpack(ARGV, 10))
    if differ > 0 and math.abs(tonumber(string.match(id, '^%d+')) * 1000 - at) > differ then
      redis.call('XDEL', KEYS[2], id)
      return {-2, ''}
    end
  end
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', string.format('%.0f', at - ARGV[6]))
  redis.call('ZADD', KEYS[4], ARGV[4], ARGV[3])
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
local new = redis.call('HSETNX', KEYS[1], 'worker ' .. ARGV[3], '1')
redis.call('PEXPIRE', KEYS[1], ARGV[7])
return {new, redis.call('HGET', KEYS[1], 'outcome') or ''}
""")


@dataclass(frozen=True, slots=True)
class CommandEvent:
    """The request of a command, or its outcome at the first worker that had one.

    `broadcast` is the nonce of its credential, or a hash of its message. `outcome` is empty for
    the request, else `applied`, `denied` or `refused: <why>`. `arguments` and `jobs` (the outcome
    of each job) are JSON objects.
    """

    verb: Action
    worker: str
    at_us: int
    command: str
    broadcast: str
    arguments: str
    outcome: str = ""
    jobs: str = ""
    credential: str = field(default="", repr=False)

    @property
    def at(self) -> datetime:
        """When the worker took or answered the command, by its own clock."""
        return from_us(self.at_us)

    @property
    def given(self) -> dict[str, Any]:
        """The arguments of the command."""
        return dict(json.loads(self.arguments))

    def fields(self) -> dict[str, str | int]:
        """Return the entry as it is written to the stream."""
        return {
            VERB_FIELD.decode(): self.verb.value,
            COMMAND_FIELD.decode(): self.command,
            "worker": self.worker,
            "at": self.at_us,
            "broadcast": self.broadcast,
            "arguments": self.arguments,
            "outcome": self.outcome[:_LONGEST_OUTCOME],
            "jobs": self.jobs,
            "credential": self.credential[:LONGEST_CREDENTIAL],
        }

    @classmethod
    def parse(cls, fields: Mapping[bytes, bytes]) -> Self:
        """Read an entry; raises KeyError and ValueError."""
        texts = {name.decode(): value.decode() for name, value in fields.items()}
        event = cls(
            verb=Action(texts["verb"]),
            worker=texts.get("worker", ""),
            at_us=int(texts.get("at", "")),
            command=texts["command"],
            broadcast=texts.get("broadcast", ""),
            arguments=texts.get("arguments", ""),
            outcome=texts.get("outcome", ""),
            jobs=texts.get("jobs", ""),
            credential=texts.get("credential", ""),
        )
        event.check()
        return event

    def check(self) -> None:
        """Raise ValueError for an event that the mirror cannot store."""
        check_worker(self.worker)
        if len(self.arguments) > LONGEST_ARGUMENTS:
            raise ValueError(
                f"the arguments have {len(self.arguments)} characters, expected at most "
                f"{LONGEST_ARGUMENTS}. Send the command for fewer jobs at once"
            )
        if len(self.jobs) > LONGEST_JOBS:
            raise ValueError(
                f"the outcomes of the jobs have {len(self.jobs)} characters, expected at most "
                f"{LONGEST_JOBS}. Send the command for fewer jobs at once"
            )
        _check_object("arguments", self.arguments)
        _check_object("jobs", self.jobs or "{}")
        try:
            _ = self.at
        except (OverflowError, OSError) as error:
            raise ValueError(f"the field 'at' is not a time in microseconds: {error}") from error


def _check_object(name: str, text: str) -> None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the field {name!r} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"the field {name!r} is not a JSON object: {text[:60]!r}")


@dataclass(frozen=True, slots=True)
class Opened:
    """`first_here`: this worker had not taken the command before. `outcome`: its outcome so far."""

    first_here: bool
    outcome: str


class CommandEvents:
    """Appends commands to the lifecycle stream; `budget` is how many events that may have."""

    def __init__(self, client: redis.Redis, namespace: str, budget: int) -> None:
        self._client, self._keys, self._thin_at = client, Keys(namespace), thin_at(budget)

    def request(self, event: CommandEvent, request_id: str) -> Opened:
        """Append the request of a command unless another worker has.

        Raises ValueError if the mirror would not store it, and redis-py's errors.
        """
        return self._append(event, request_id, _REQUESTED, "1")

    def answer(self, event: CommandEvent, request_id: str) -> None:
        """Append the outcome of a command unless another worker has; raises as `request` does."""
        self._append(event, request_id, _OUTCOME, event.outcome[:_LONGEST_OUTCOME])

    def _append(self, event: CommandEvent, request_id: str, name: str, value: str) -> Opened:
        event.check()
        differ = us_of(CLOCKS_MAY_DIFFER.total_seconds()) if event.credential else 0
        keys = self._keys
        head: list[Argument] = [name, value, event.worker, event.at_us, differ]
        kept: list[Argument] = [us_of(ANNOUNCED_FOR.total_seconds()), _KEPT_MS]
        left_out: list[Argument] = [0 if event.credential else self._thin_at, _LEFT_OUT]
        fields: list[Argument] = [part for pair in event.fields().items() for part in pair]
        raw: Any = _APPEND(
            self._client,
            [keys.command(request_id), keys.lifecycle, keys.gaps, keys.announced],
            [*head, *kept, *left_out, *fields],
        )
        new, outcome = int(raw[0]), raw[1]
        if new == _AHEAD:
            raise ahead(keys.lifecycle)
        if new < 0:
            raise clocks_differ()
        text = outcome if isinstance(outcome, str) else outcome.decode("utf-8", "replace")
        return Opened(new == 1, text)
