"""What is wrong with a control message that a worker cannot handle as a command.

Celery logs a traceback for such a message and opens its channel again; anyone who can publish could
have it do so all the time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from kombu.matcher import MatcherNotInstalled, match

from taskyard.access.broadcast_calls import BROADCASTS

__all__ = ["fault_of_control_message"]

_LARGEST_CLOCK: Final = 2**62


def fault_of_control_message(body: object, message: Any, hostname: str) -> str | None:
    """Return the fault of a decoded message, for this worker; None if it is a command."""
    if not isinstance(body, Mapping) or not all(isinstance(name, str) for name in body):
        return f"expected a mapping, got {body!r:.60}"
    method = body.get("method")
    if not isinstance(method, str):
        return f"'method' must be the name of a command, got {method!r:.60}"
    return (
        _fault_of_arguments(method, body.get("arguments"))
        or _fault_of_receivers(body, hostname)
        or _fault_of_reply(body.get("reply_to"))
        or _fault_of_clock(message)
    )


def _fault_of_arguments(method: str, arguments: object) -> str | None:
    # A signed broadcast with any arguments is denied and counted.
    if not arguments or method in BROADCASTS:
        return None
    if isinstance(arguments, Mapping) and all(isinstance(name, str) for name in arguments):
        return None
    return f"'arguments' of {method:.60} must be a mapping of names, got {arguments!r:.60}"


def _fault_of_receivers(body: Mapping[str, Any], hostname: str) -> str | None:
    destination = body.get("destination")
    if destination and not isinstance(destination, list | tuple | set):
        return f"'destination' must be a list of workers' names, got {destination!r:.60}"
    pattern, matcher = body.get("pattern"), body.get("matcher")
    if destination or not pattern or not matcher:
        return None
    try:
        match(hostname, pattern, matcher)
    except (MatcherNotInstalled, re.error, TypeError, AttributeError, RecursionError) as error:
        return f"'pattern' and 'matcher' match no name ({error}): {pattern!r:.60}"
    return None


def _fault_of_reply(reply_to: object) -> str | None:
    if not reply_to:
        return None
    names = (
        [reply_to.get(name) for name in ("exchange", "routing_key")]
        if isinstance(reply_to, Mapping)
        else [None]
    )
    if all(isinstance(name, str) for name in names):
        return None
    return f"'reply_to' must name an exchange and a routing key, got {reply_to!r:.60}"


def _fault_of_clock(message: Any) -> str | None:
    clock = None if message is None else (message.headers or {}).get("clock")
    if clock is None or (isinstance(clock, int) and 0 <= clock < _LARGEST_CLOCK):
        return None
    return f"header 'clock' must be a whole number, got {clock!r:.60}"
