"""What follows a job: callbacks, the rest of its chain, errbacks, the body of its chord."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from amqp.exceptions import AMQPError
from celery.exceptions import BackendError
from kombu.exceptions import OperationalError, SerializationError, SerializerNotInstalled

from taskyard.engine.publish_errors import PUBLISH_ERRORS

__all__ = [
    "Continuation",
    "check_route",
    "continuation_id",
    "continuations_of",
    "fix_continuations",
    "is_invalid",
    "is_passing",
    "whole",
]

_CONTINUATIONS: Final = uuid.UUID("1f0f3c56-5a56-5a0e-8a52-0c3a0f3f7a10")
_PASSING: Final = (*PUBLISH_ERRORS, AMQPError, BackendError)
# What says that a signature itself is at fault: it would fail the same way again.
_INVALID: Final = (
    SerializationError,
    SerializerNotInstalled,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)
# Elsewhere a message that has no such name is dropped silently.
_NAMES: Final = ("queue", "exchange", "routing_key")


@dataclass(frozen=True, slots=True)
class Continuation:
    """One of what follows a job. `before` are arguments that go before the signature's own.

    `kind` is callback, chain, errback or chord; `rest` the steps of a chain that come after it.
    """

    kind: str
    index: int
    signature: Any
    before: tuple[Any, ...] = ()
    rest: list[Any] = field(default_factory=list)


def whole(given: Any) -> Any:
    """A signature of another client's, with what Celery takes for granted."""
    if not isinstance(given, dict):
        return given
    for name, empty in (("args", list), ("kwargs", dict), ("options", dict)):
        if given.get(name) is None:
            given[name] = empty()
    return given


def check_route(signature: Any) -> None:
    """Raise `TypeError` where an option that says where to is no text."""
    for name in _NAMES:
        value = signature["options"].get(name)
        if value is not None and not isinstance(value, str):
            raise TypeError(f"option {name!r} must be a text, got {value!r:.60}")


def is_passing(error: BaseException) -> bool:
    """Whether a server is unreachable or refuses: the message goes back, its next delivery repeats.

    kombu calls an unknown serializer an error of the connection too, since a `KeyError` can be one
    on Redis; what it was stands behind.
    """
    return isinstance(error, _PASSING) and not is_invalid(error)


def is_invalid(error: BaseException) -> bool:
    """Whether the signature itself is at fault."""
    while isinstance(error, OperationalError) and error.__cause__ is not None:
        error = error.__cause__
    return isinstance(error, _INVALID)


def fix_continuations(request: Any) -> None:
    """Complete every continuation, and give it an id that a repeated publication derives again."""
    for kind in ("callbacks", "errbacks", "chain"):
        for index, one in enumerate(getattr(request, kind, None) or ()):
            options = whole(one)["options"]
            options.setdefault("task_id", continuation_id(request.id, kind, index))
    if getattr(request, "chord", None):
        whole(request.chord)


def continuation_id(job_id: str, kind: str, index: int) -> str:
    """The id of a continuation that names none."""
    return str(uuid.uuid5(_CONTINUATIONS, f"{job_id}:{kind}:{index}"))


def continuations_of(request: Any, value: Any) -> Iterator[Continuation]:
    """What a job publishes when it has returned `value`."""
    for index, one in enumerate(request.callbacks or ()):
        yield Continuation("callback", index, one, (value,))
    chain = list(request.chain or ())
    if chain:
        *rest, following = chain
        yield Continuation("chain", len(rest), following, (value,), rest)
