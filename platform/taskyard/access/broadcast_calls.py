"""Signed broadcasts: control commands that each worker verifies for itself."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from taskyard.access.actions import Action
from taskyard.access.credential import Call, call_of

__all__ = ["BROADCASTS", "WHOAMI", "call_at", "call_of_broadcast", "request_id_at"]

_NAMESPACE: Final = uuid.UUID("8a1f0c3e-6b57-5d0e-9c55-1d0a6f3f7b21")
WHOAMI: Final = "taskyard_whoami"
BROADCASTS: Final[Mapping[str, Action]] = {WHOAMI: Action.WHOAMI}


def call_of_broadcast(audience: str, command: str, workers: Iterable[str] = ()) -> Call:
    """Return the call to sign, for the named `workers`; without names it is for every worker."""
    return call_of(audience, BROADCASTS[command], {}, workers)


def call_at(audience: str, verb: Action, worker: str) -> Call:
    """Return the call that one worker receives; the worker and the mirror verify the same call."""
    return replace(call_of(audience, verb, {}), receiver=worker)


def request_id_at(nonce: str, worker: str) -> uuid.UUID:
    """Return the request id of a broadcast at one worker: the same for each copy of it."""
    return uuid.uuid5(_NAMESPACE, f"{nonce}:{worker}")
