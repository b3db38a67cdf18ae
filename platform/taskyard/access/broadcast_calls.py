"""Signed broadcasts: control commands that each worker verifies for itself."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from taskyard.access.actions import Action
from taskyard.access.credential import Call, call_of

__all__ = [
    "BROADCASTS",
    "UNVERIFIED",
    "WHOAMI",
    "call_at",
    "call_of_broadcast",
    "call_of_command",
    "command_at",
    "request_id_at",
    "request_id_of_command",
]

_NAMESPACE: Final = uuid.UUID("8a1f0c3e-6b57-5d0e-9c55-1d0a6f3f7b21")
WHOAMI: Final = "taskyard_whoami"
BROADCASTS: Final[Mapping[str, Action]] = {WHOAMI: Action.WHOAMI}
UNVERIFIED: Final = "broker:unverified"
"""The identity of whoever sends a control command of Celery without a credential."""


def call_of_broadcast(audience: str, command: str, workers: Iterable[str] = ()) -> Call:
    """Return the call to sign, for the named `workers`; without names it is for every worker."""
    return call_of(audience, BROADCASTS[command], {}, workers)


def call_at(audience: str, verb: Action, worker: str) -> Call:
    """Return the call that one worker receives; the worker and the mirror verify the same call."""
    return replace(call_of(audience, verb, {}), receiver=worker)


def request_id_at(nonce: str, worker: str) -> uuid.UUID:
    """Return the request id of a broadcast at one worker: the same for each copy of it."""
    return uuid.uuid5(_NAMESPACE, f"{nonce}:{worker}")


def call_of_command(
    audience: str,
    verb: Action,
    command: str,
    arguments: Mapping[str, Any],
    workers: Iterable[str] = (),
) -> Call:
    """Return the call of a control command of Celery; without `workers` it is for all of them.

    Raises `InvalidPayload` if the arguments are not JSON.
    """
    return call_of(audience, verb, {"command": command, "arguments": dict(arguments)}, workers)


def command_at(
    audience: str, verb: Action, command: str, arguments: Mapping[str, Any], worker: str
) -> Call:
    """Return the call of a control command that one worker receives."""
    return replace(call_of_command(audience, verb, command, arguments), receiver=worker)


def request_id_of_command(broadcast: str, *, signed: bool) -> uuid.UUID:
    """Return the request id of a control command: the same in each worker that receives it.

    `broadcast` is the nonce of its credential, or a hash of the message. No program can choose a
    hash so that its command gets the request id of another operator's call.
    """
    return uuid.uuid5(_NAMESPACE, f"command:{'signed' if signed else 'unsigned'}:{broadcast}")
