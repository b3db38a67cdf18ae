"""Calling a handler: payload in, JSON-ready result out, sync and async alike."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from taskyard.errors import CodedError
from taskyard.jobs import JobContext
from taskyard.jobs.codes import VALIDATION_ERROR
from taskyard.jobs.registry import Handler
from taskyard.jobs.types import describe

__all__ = ["invoke", "payload_of"]


def payload_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """A job has one payload: the only positional argument, or the keywords as a mapping."""
    if len(args) == 1 and not kwargs:
        return args[0]
    if not args:
        return dict(kwargs)
    message = f"expected one payload, got {len(args)} arguments and {len(kwargs)} keywords"
    raise CodedError(VALIDATION_ERROR, message)


def invoke(handler: Handler, payload: Any, context: JobContext, loops: asyncio.Runner) -> Any:
    """The handler's result as JSON-ready data; raises what the handler raises.

    A payload that its model refuses is a `CodedError("validation_error")`.
    """
    argument = _validated(handler, payload)
    arguments = (argument, context) if handler.wants_context else (argument,)
    result = handler.function(*arguments)
    if inspect.isawaitable(result):
        result = loops.run(_settle(result))
    return result.model_dump(mode="json") if isinstance(result, BaseModel) else result


def _validated(handler: Handler, payload: Any) -> Any:
    if handler.payload_model is None:
        return payload
    try:
        return handler.payload_model.model_validate(payload)
    except ValidationError as error:
        raise CodedError(VALIDATION_ERROR, describe(handler.name, error)) from error


async def _settle(awaitable: Any) -> Any:
    return await awaitable
