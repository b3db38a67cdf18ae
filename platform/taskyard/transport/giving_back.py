"""Giving back a message that a dead worker held, from outside any worker."""

from __future__ import annotations

import json

import redis

from taskyard.transport.ownership import script
from taskyard.transport.stored import mark_redelivered, stored_parts

__all__ = ["give_back"]

_RESTORE = script("restore")


def give_back(
    client: redis.Redis, unacked: str, index: str, tag: str, stored: bytes, queue_list: str
) -> bool:
    """Make a message the next of its list, unless somebody has settled or returned it meanwhile.

    All keys by their full names. Raises redis-py's errors; the message is still held then.
    """
    message, _, _ = stored_parts(stored)
    if not isinstance(message, bytes):
        message = json.dumps(mark_redelivered(message)).encode()
    return bool(_RESTORE(client, [unacked, index, queue_list], [tag, message, "next"]))
