"""All fields that decide how a type's jobs are handled: value and origin, one by one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from taskyard.jobs import RetryPolicy
from taskyard.ops.cli.target_servers import Target
from taskyard.ops.cli.types.field_origins import DEFAULT, Known

__all__ = ["Fact", "facts", "never_retried", "waits_ms"]

# Limits that no single type has; a queue from the settings applies them to all its types.
_SETTINGS: Final = (
    "death_limit",
    "delivery_limit",
    "unique_for_s",
    "result_ttl_s",
    "max_payload_bytes",
    "max_result_bytes",
)
_SHOWN: Final = 5
_POLICY: Final = tuple(RetryPolicy.model_fields)
_OWN: Final = (
    "sla_s",
    "time_limit_s",
    "soft_time_limit_s",
    "payload_model",
    "shed_class",
    "owner",
    "domain",
)


@dataclass(frozen=True, slots=True)
class Fact:
    """One field: its value in force, and where it was set."""

    name: str
    value: Any
    origin: str


def facts(known: Known, target: Target) -> Iterator[Fact]:
    """Return every field, in the order in which a job uses them; raises `UnknownQueue`."""
    job_type, settings = known.job_type, target.settings
    yield Fact("queue", job_type.queue, known.origin("queue"))
    if job_type.priority is None:
        default = settings.queue(job_type.queue).default_priority
        yield Fact("priority", default, f"middle of queue {job_type.queue}")
    else:
        yield Fact("priority", job_type.priority, known.origin("priority"))
    for name in _OWN:
        yield Fact(name, getattr(job_type, name), known.origin(name))
        if name == "payload_model":
            yield _annotation(known)
    policy = job_type.policy.model_dump(mode="json")
    for name in _POLICY:
        yield Fact(name, policy[name], known.origin(f"policy.{name}"))
    yield Fact("never_retried", never_retried(job_type.policy), "computed")
    yield Fact("waits_ms", waits_ms(job_type.policy), "computed")
    for name in _SETTINGS:
        yield Fact(name, getattr(settings, name), target.origins.get(name, DEFAULT))


def _annotation(known: Known) -> Fact:
    """Return the model in the handler's signature; a worker checks payloads against it."""
    model = known.job_type.annotation
    if model is None:
        return Fact("payload_annotation", None, DEFAULT)
    named = f"{model.__module__}:{model.__qualname__}"
    return Fact("payload_annotation", named, f"handler {known.handler}")


def never_retried(policy: RetryPolicy) -> str:
    """Return the error codes that end a job at its first failure; denied codes take precedence."""
    denied = ", ".join(policy.no_retry_errors)
    if policy.retry_on_errors is None:
        return denied or "none"
    return f"all but {', '.join(policy.retry_on_errors) or 'none'}"


def waits_ms(policy: RetryPolicy) -> list[int]:
    """Return the longest wait before each of the first five retries.

    Jitter makes half of it random.
    """
    steady = policy.model_copy(update={"jitter": False})
    count = min(policy.max_retries, _SHOWN)
    rng = random.Random(0)  # noqa: S311 - not used without jitter
    delays = [steady.delay(retry, rng) for retry in range(1, count + 1)]
    return [round(delay / timedelta(milliseconds=1)) for delay in delays]
