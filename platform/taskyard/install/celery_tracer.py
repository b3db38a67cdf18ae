"""Extend Celery's tracer to failures that are no subclass of `Exception`.

Celery lets such an exception pass through its tracer. A pool's process reports it, but threads,
greenlets and solo never end the task, and its message is held for ever. So Taskyard reports a
decided failure of this kind as Celery reports any other: by the result, the hook `on_failure`,
errbacks and the signal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import states
from celery.app.task import Context
from celery.app.trace import TraceInfo, trace_ok_t

from taskyard.engine.continuations import fix_continuations

__all__ = ["TaskFailed", "reportable", "traced"]


class TaskFailed(BaseException):
    """Raised when a task's failure is decided; `error` is what the task raised.

    Only `traced` catches it.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


def reportable(error: BaseException) -> BaseException:
    """Return a decided failure in a form that Celery's tracer, or Taskyard's around it, accepts."""
    # Celery's tracer lets a MemoryError pass as well.
    taken = isinstance(error, Exception) and not isinstance(error, MemoryError)
    return error if taken else TaskFailed(error)


def traced(task: Any, tracer: Callable[..., Any]) -> Callable[..., Any]:
    """Return Celery's `tracer` of `task`, extended to report the errors that it lets pass."""

    def trace(uuid: str, args: Any, kwargs: Any, request: Any = None) -> Any:
        try:
            return tracer(uuid, args, kwargs, request)
        except TaskFailed as failed:
            context = Context(request or {}, args=args, kwargs=kwargs, called_directly=False)
            fix_continuations(context)
            return _reported(task, context, failed.error)

    return trace


def _reported(task: Any, context: Any, error: BaseException) -> Any:
    info = TraceInfo(states.FAILURE, error)
    # The tracer has removed the request from the stack, where the hooks read it.
    task.request_stack.push(context)
    try:
        report = info.handle_error_state(task, context)
    finally:
        task.request_stack.pop()
    return trace_ok_t(report, info, 0.0, None)
