"""Entries of the lifecycle stream for tests that store them without a Redis."""

from __future__ import annotations

from itertools import count

from support.letters import DIED_US
from taskyard.mirror.lifecycle_stream import StreamEntry

__all__ = ["make_entry"]

_NUMBERS = count(1)


def make_entry(job: str, **fields: object) -> StreamEntry:
    """An event of `job`; `fields` are those of the stream, and may hold any character."""
    known: dict[str, object] = {"job": job, "epoch": DIED_US, "version": 1, "at": DIED_US}
    known |= {"event": "fail", "state": "dead_lettered", **fields}
    raw = {
        name.encode(): str(value).encode("utf-8", "surrogatepass") for name, value in known.items()
    }
    return StreamEntry(f"1-{next(_NUMBERS)}", raw)
