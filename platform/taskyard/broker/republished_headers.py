"""Build the headers of a message that is published again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from taskyard.wire.letter_envelope import RawMessage
from taskyard.wire.lossless_json import unpack
from taskyard.wire.stamp_header import HEADER, Stamp

__all__ = ["headers_of", "own_headers", "restamped"]

# Times in Celery's own headers; a retry drops `eta`, a replay drops both.
_STRIPPED: Final = frozenset({"expires", "eta"})
# The broker's counts belong to the earlier delivery.
_OF_THE_PAST: Final = frozenset({"x-death", "x-delivery-count", "x-acquired-count", "redelivered"})


def headers_of(message: RawMessage, stamp: Stamp, strip: Iterable[str]) -> dict[str, Any]:
    """Return the headers of a message, with the stamp of its job's current position."""
    return restamped(own_headers(message), stamp, strip)


def restamped(
    headers: Mapping[str, Any], stamp: Stamp, strip: Iterable[str] = ()
) -> dict[str, Any]:
    """Return headers with another stamp, and without those in `strip`."""
    new = {name: value for name, value in headers.items() if name not in _OF_THE_PAST}
    new |= {name: None for name in strip if name in _STRIPPED}
    if stamp.generation and not stamp.seq and new.get("retries"):
        new["retries"] = 0  # a replay starts with all its retries, those of Celery too
    new[HEADER] = stamp.header()
    return new


def own_headers(message: RawMessage) -> dict[str, Any]:
    """Return the headers of a message without those that the broker adds to count deliveries."""
    return {k: unpack(v) for k, v in message.headers.items() if k not in _OF_THE_PAST}
