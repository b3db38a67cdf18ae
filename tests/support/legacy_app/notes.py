"""What the legacy app's tasks leave behind, in a Redis of their own: counters and lists."""

from __future__ import annotations

import os

import redis

_URL = os.environ.get("LEGACY_NOTES", "")
_PREFIX = os.environ.get("LEGACY_PREFIX", "legacy")


def client() -> redis.Redis:
    # redis-py gives up after 5 s unless told; a gate is waited for longer.
    return redis.Redis.from_url(_URL, socket_timeout=70)


def note(name: str, what: str = "1") -> int:
    """Append to a list; how many it has now."""
    with client() as notes:
        return int(notes.rpush(f"{_PREFIX}:note:{name}", what))


def await_gate(name: str) -> None:
    """Wait, at most a minute, until a test opens the gate."""
    with client() as notes:
        notes.blpop([f"{_PREFIX}:gate:{name}"], timeout=60)
