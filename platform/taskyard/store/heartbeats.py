"""Heartbeats: a hash with a field for each that lives, by the server's time.

A field is the time of its last heartbeat in microseconds, a space, and what the living says of
itself. It stays when it falls silent, so that what it left can be found.
"""

from __future__ import annotations

from typing import Any, Final

import redis

from taskyard.clock import redis_time_us
from taskyard.store.scripts import Script

__all__ = ["SIGNED_OFF", "beat", "read_beats"]

SIGNED_OFF: Final = 0
"""The time of one that ended in order."""

# KEYS: heartbeats. ARGV: name, description.
_BEAT: Final = Script("""
local time = redis.call('TIME')
local us = string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2]))
redis.call('HSET', KEYS[1], ARGV[1], us .. ' ' .. ARGV[2])
""")


def beat(client: Any, key: str, name: str, description: str) -> None:
    """Say that `name` lives; raises redis-py's errors."""
    _BEAT(client, [key], [name, description])


def read_beats(client: redis.Redis, key: str) -> tuple[int, dict[str, tuple[int, str]]]:
    """The server's time, and time and description of each heartbeat by name.

    What is no heartbeat is left out. Raises redis-py's errors.
    """
    with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.hgetall(key)
        now, fields = pipe.execute()
    beats = {}
    for name, value in fields.items():
        us, _, description = _text(value).partition(" ")
        if us.isdecimal():
            beats[_text(name)] = int(us), description
    return redis_time_us(now), beats


def _text(raw: bytes | str) -> str:
    return raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
