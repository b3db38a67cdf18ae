"""Find the continuations of a job: callbacks, the rest of its chain, errbacks, its chord's body."""

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
# Errors that show that the signature itself is at fault: it would fail the same way again.
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
# On other brokers, a message without such a name is dropped without an error.
_NAMES: Final = ("queue", "exchange", "routing_key")


@dataclass(frozen=True, slots=True)
class Continuation:
    """One continuation of a job.

    `before` are arguments that go before the signature's own. `kind` is callback, chain,
    errback or chord; `rest` are the later steps of a chain.
    """

    kind: str
    index: int
    signature: Any
    before: tuple[Any, ...] = ()
    rest: list[Any] = field(default_factory=list)


def whole(given: Any) -> Any:
    """Complete a signature that another client wrote with the fields that Celery expects."""
    if not isinstance(given, dict):
        return given
    for name, empty in (("args", list), ("kwargs", dict), ("options", dict)):
        if given.get(name) is None:
            given[name] = empty()
    return given


def check_route(signature: Any) -> None:
    """Raise `TypeError` if an option of the route is not text."""
    for name in _NAMES:
        value = signature["options"].get(name)
        if value is not None and not isinstance(value, str):
            raise TypeError(f"option {name!r} must be a text, got {value!r:.60}")


def is_passing(error: BaseException) -> bool:
    """Return whether an error is temporary: a server is unreachable or refuses.

    Then the next delivery repeats the publication. kombu treats an unknown serializer as an
    error of the connection too, since a `KeyError` can be one with Redis; the original error is
    its cause.
    """
    return isinstance(error, _PASSING) and not is_invalid(error)


def is_invalid(error: BaseException) -> bool:
    """Return whether the error is a fault of the signature itself."""
    while isinstance(error, OperationalError) and error.__cause__ is not None:
        error = error.__cause__
    return isinstance(error, _INVALID)


def fix_continuations(request: Any) -> None:
    """Give every continuation the fields and the id that it needs.

    The id is the same each time the publication is repeated.
    """
    for kind in ("callbacks", "errbacks", "chain"):
        for index, one in enumerate(getattr(request, kind, None) or ()):
            options = whole(one)["options"]
            options.setdefault("task_id", continuation_id(request.id, kind, index))
    if getattr(request, "chord", None):
        whole(request.chord)


def continuation_id(job_id: str, kind: str, index: int) -> str:
    """Return an id for a continuation without one; the same job and position give the same id."""
    return str(uuid.uuid5(_CONTINUATIONS, f"{job_id}:{kind}:{index}"))


def continuations_of(request: Any, value: Any) -> Iterator[Continuation]:
    """Return the continuations that a job publishes after it has returned `value`."""
    for index, one in enumerate(request.callbacks or ()):
        yield Continuation("callback", index, one, (value,))
    chain = list(request.chain or ())
    if chain:
        *rest, following = chain
        yield Continuation("chain", len(rest), following, (value,), rest)
