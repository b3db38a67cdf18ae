"""Check an edited payload before it is sent, against the job types that this process knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from taskyard.control.replayed_message import Edit
from taskyard.errors import InvalidPayload
from taskyard.jobs import Catalogue
from taskyard.jobs.handler_registry import Registry
from taskyard.jobs.types import describe

__all__ = ["KnownTypes", "check_edit"]


class KnownTypes:
    """Job types and handlers that an operator's process knows; a worker may know more of them."""

    def __init__(self, catalogue: Catalogue, handlers: Registry) -> None:
        self._catalogue, self._handlers = catalogue, handlers

    def handles(self, job_type: str | None) -> bool:
        """Return whether the handler is installed in this process."""
        return job_type in self._handlers

    def model(self, job_type: str) -> type[BaseModel] | None:
        """Return the model with which a worker validates the payload, None if unknown here.

        The handler's annotation decides, since a worker uses it; `enqueue` uses the type's own
        model. Raises `InvalidSettings` for a model that cannot be imported.
        """
        if job_type in self._handlers:
            own = self._handlers[job_type].payload_model
            if own is not None:
                return own
        return self._catalogue[job_type].model() if job_type in self._catalogue else None


def check_edit(known: KnownTypes | None, job_type: str | None, edit: Edit) -> bool:
    """Check a payload; return False if this process does not know the payload's model.

    Raises `InvalidPayload` if the payload does not fit its model.
    """
    model = None if known is None or job_type is None else known.model(job_type)
    if model is None or job_type is None:
        # A handler without a model accepts any payload.
        return known is not None and known.handles(job_type)
    try:
        model.model_validate(_payload(job_type, edit.args, edit.kwargs))
    except ValidationError as error:
        raise InvalidPayload(describe(job_type, error)) from error
    return True


def _payload(job_type: str, args: list[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the one payload: the only positional argument, or the named ones as a mapping."""
    if len(args) == 1 and not kwargs:
        return args[0]
    if not args:
        return dict(kwargs)
    raise InvalidPayload(
        f"a job of type {job_type!r} takes one payload, got {len(args)} positional arguments and "
        f"{len(kwargs)} named ones; give the payload with --payload"
    )
