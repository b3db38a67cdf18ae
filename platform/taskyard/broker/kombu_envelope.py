"""kombu's wire format for Redis, written here so that a script can publish it.

A message is one JSON document in the list of its queue and priority step: it is pushed at the left
end and popped at the right end (kombu/transport/virtual/base.py and redis.py).
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from typing import Any, Final

from taskyard.wire.letter_envelope import RawMessage
from taskyard.wire.lossless_json import unpack

__all__ = ["encode"]

_PERSISTENT: Final = 2
# What belongs to one delivery is new; all other properties are the message's own.
_OF_ONE_DELIVERY: Final = frozenset({"delivery_tag", "delivery_info", "body_encoding", "priority"})


def encode(
    message: RawMessage,
    *,
    queue: str,
    step: int,
    headers: Mapping[str, Any],
    tag: str | None = None,
) -> str:
    """Return the JSON document that kombu stores in a queue's list for a message.

    `queue` is the broker's name of the queue, `step` its priority step; `tag` is the delivery tag,
    a new one by default.
    """
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
