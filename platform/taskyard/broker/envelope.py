"""kombu's wire format for Redis, written by us so that a script can publish it.

A message is one JSON document in the list of its queue and priority step: the left end is pushed,
the right end is popped (kombu/transport/virtual/base.py and redis.py).
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from typing import Any, Final

from taskyard.wire.exact import unpack
from taskyard.wire.letters import RawMessage

__all__ = ["encode"]

_PERSISTENT: Final = 2
# What belongs to one delivery is made anew; the rest of the properties is the message's own.
_OF_ONE_DELIVERY: Final = frozenset({"delivery_tag", "delivery_info", "body_encoding", "priority"})


def encode(
    message: RawMessage,
    *,
    queue: str,
    step: int,
    headers: Mapping[str, Any],
    tag: str | None = None,
) -> str:
    """The document that a pop of `queue` (the broker's name) will deliver."""
    own = {k: unpack(v) for k, v in message.properties.items() if k not in _OF_ONE_DELIVERY}
    document = {
        "body": base64.b64encode(message.body).decode("ascii"),
        "content-encoding": message.content_encoding,
        "content-type": message.content_type,
        "headers": dict(headers),
        "properties": {
            "delivery_mode": _PERSISTENT,
            **own,
            "priority": step,
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": queue},
            "delivery_tag": str(uuid.uuid4()) if tag is None else tag,
        },
    }
    return json.dumps(document)
