"""Job types: what a service may enqueue, and how a worker runs it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cached_property
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails

from taskyard.errors import InvalidPayload, InvalidSettings
from taskyard.jobs.retry_policy import DEFAULT_POLICY, RetryPolicy
from taskyard.wire.redaction import redact

__all__ = ["DEFAULT_TIME_LIMIT_S", "JobType", "describe"]

DEFAULT_TIME_LIMIT_S: Final = 300.0
# Of the fields that came, an error names so many, and of each name so many characters.
_NAMES: Final = 5
_NAME_LENGTH: Final = 40


class JobType(BaseModel):
    """One job type; its name is the name of the Celery task.

    `sla_s` (seconds from admission to start), `owner` and `shed_class` are shown to operators; no
    code enforces them yet. `domain` is the service that owns the type's jobs: an operator who is
    limited to domains may act on these jobs only. `time_limit_s` kills the attempt;
    `soft_time_limit_s` raises an exception in the handler first. Both limits work in pools of
    processes. With gevent only the hard limit works, with threads or solo neither, as in Celery.
    `payload_model` is a pydantic model, written `package.module:Class`; None leaves payloads
    unchecked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    queue: str
    priority: int | None = None
    policy: RetryPolicy = DEFAULT_POLICY
    sla_s: float | None = Field(default=None, gt=0)
    time_limit_s: float = Field(default=DEFAULT_TIME_LIMIT_S, gt=0)
    soft_time_limit_s: float | None = Field(default=None, gt=0)
    payload_model: str | None = Field(default=None, pattern=r"^[\w.]+:\w+$")
    shed_class: str | None = None
    owner: str | None = None
    domain: str | None = Field(default=None, pattern=r"^[^\s,]{1,200}$")
    # Not a field: no file can name it, and no listing can print a class.
    _annotation: type[BaseModel] | None = PrivateAttr(default=None)

    @property
    def annotation(self) -> type[BaseModel] | None:
        """The pydantic class of the handler's payload; None if this process has no such handler."""
        return self._annotation

    def with_annotation(self, annotation: type[BaseModel] | None) -> Self:
        """Return a copy whose payloads must also fit `annotation`."""
        copy = self.model_copy()
        copy._annotation = annotation
        copy.__dict__.pop("checks_payload", None)
        return copy

    def model(self) -> type[BaseModel] | None:
        """Return the payload's model, imported on demand; raises `InvalidSettings` without it."""
        if self.payload_model is None:
            return None
        module_name, class_name = self.payload_model.split(":")
        try:
            found = getattr(importlib.import_module(module_name), class_name)
        except (ImportError, AttributeError) as error:
            msg = (
                f"job type {self.name!r}: payload_model {self.payload_model!r} cannot be imported "
                f"({error}); expected package.module:Class"
            )
            raise InvalidSettings(msg) from error
        if not (isinstance(found, type) and issubclass(found, BaseModel)):
            msg = f"job type {self.name!r}: {self.payload_model!r} is not a pydantic model"
            raise InvalidSettings(msg)
        return found

    # Cached: every enqueue asks, and pydantic's private attributes are slow.
    @cached_property
    def checks_payload(self) -> bool:
        """Whether the type or its handler here has a model for the payload."""
        return self.payload_model is not None or self._annotation is not None

    def check_payload(self, payload: object) -> None:
        """Check the payload, JSON data, against the type's model and the handler's annotation.

        Raises `InvalidPayload` naming field, value and expectation.
        """
        for model in dict.fromkeys((self.model(), self._annotation)):
            if model is None:
                continue
            try:
                model.model_validate(payload)
            except ValidationError as error:
                raise InvalidPayload(describe(self.name, error)) from error


def describe(job_type: str, error: ValidationError) -> str:
    """Return the first faults of a payload, one line for each: field, expectation, value."""
    faults = [f"  {_sentence(fault)}" for fault in error.errors(include_url=False)[:5]]
    return f"the payload does not fit job type {job_type!r}:\n" + "\n".join(faults)


def _sentence(fault: ErrorDetails) -> str:
    location, value = fault["loc"], fault["input"]
    place = _path(location) or "(payload)"
    if fault["type"] == "missing" and isinstance(value, Mapping):
        # What came is the mapping around the field: its names are enough, its values may be long.
        around = repr(_path(location[:-1])) if location[1:] else "the payload"
        return f"{place}: this required field is missing; {around} has {_names(value)}"
    return f"{place}: {fault['msg']}, got: {_shown(location, value)}"


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)


def _names(fields: Mapping[object, object]) -> str:
    """Return the names of the given fields, shortened."""
    if not fields:
        return "no fields"
    names = [repr(name)[:_NAME_LENGTH] for name in list(fields)[:_NAMES]]
    more = len(fields) - len(names)
    return f"{'field' if len(fields) == 1 else 'fields'} {', '.join(names)}" + (
        f" and {more} more" if more else ""
    )


def _shown(location: tuple[int | str, ...], value: object) -> str:
    """Return the wrong value, shortened, without secrets by its own or its parent's key."""
    name = str(location[-1]) if location else ""
    return repr(str(redact({name: value})[name]))[:80]
