"""Publishing what `self.replace` puts in a task's place, as the job's next step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from taskyard.wire.headers import HEADER, Stamp

__all__ = ["publish_replacement", "successor_of"]

# They plan other tasks; the one that bears the job's id is among those.
_PLANS: Final = frozenset({"celery.chain", "celery.group", "celery.chord"})


def successor_of(signature: Any, job_id: str) -> dict[str, Any] | None:
    """The task within `signature` that has the job's id, None where there is none.

    In a chain it is the last one, in a chord its body.
    """
    for found in _signatures(signature):
        if found["task"] not in _PLANS and (found.get("options") or {}).get("task_id") == job_id:
            return found
    return None


def publish_replacement(signature: Any, job_id: str, stamp: Stamp) -> None:
    """Publish `signature`; whenever the message with the job's id comes, it says where it stands.

    Raises what Celery's publishing raises.
    """
    found = successor_of(signature, job_id)
    if found is not None:
        options = found["options"]
        options["headers"] = {**(options.get("headers") or {}), HEADER: stamp.header()}
    signature.delay()


def _signatures(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if isinstance(value.get("task"), str):
            yield value
        for item in value.values():
            yield from _signatures(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _signatures(item)
