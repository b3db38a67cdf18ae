"""Job types: what a service may enqueue, and how it is treated."""

from __future__ import annotations

import importlib
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from taskyard.errors import InvalidPayload, InvalidSettings
from taskyard.jobs.policies import DEFAULT_POLICY, RetryPolicy
from taskyard.wire.redaction import redact

__all__ = ["DEFAULT_TIME_LIMIT_S", "JobType", "describe"]

DEFAULT_TIME_LIMIT_S: Final = 300.0


class JobType(BaseModel):
    """One job type: its name is the Celery task's name.

    `sla_s` (seconds from admission to start), `owner` and `shed_class` are shown to operators;
    nothing enforces them yet. `time_limit_s` kills the attempt, `soft_time_limit_s` raises inside
    it first: in pools of processes. With gevent the hard one alone holds, with threads or solo
    neither, as in Celery. `payload_model` is `package.module:Class`, a pydantic model; None leaves
    payloads unchecked.
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

    def model(self) -> type[BaseModel] | None:
        """The payload's model, imported on demand; raises `InvalidSettings` if it is not there."""
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
            msg = f"job type {self.name!r}: {self.payload_model!r} is no pydantic model"
            raise InvalidSettings(msg)
        return found

    def check_payload(self, payload: object) -> None:
        """Raise `InvalidPayload` naming field, value and expectation if the model refuses it."""
        model = self.model()
        if model is None:
            return
        try:
            model.model_validate(payload)
        except ValidationError as error:
            raise InvalidPayload(describe(self.name, error)) from error


def describe(job_type: str, error: ValidationError) -> str:
    """The first faults of a payload, a line each: field, expectation, what came."""
    faults = [
        f"  {'.'.join(str(part) for part in fault['loc']) or '(payload)'}: "
        f"{fault['msg']}, got: {_shown(fault['loc'], fault['input'])}"
        for fault in error.errors(include_url=False)[:5]
    ]
    return f"the payload does not fit job type {job_type!r}:\n" + "\n".join(faults)


def _shown(location: tuple[int | str, ...], value: object) -> str:
    """The offending value, short, without what its own or its parent's key marks as secret."""
    name = str(location[-1]) if location else ""
    return repr(str(redact({name: value})[name]))[:80]
