"""What a pool reports to the main process as a success, checked before Celery believes it.

Celery generates a subclass of `Request` for each task, whose `on_success` asks no base class.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.worker.request import Request

__all__ = ["escaped", "wrap_on_success"]


def wrap_on_success(cls: type, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Wrap the `on_success` of a class that Celery has generated; leave any other class alone."""
    generated = cls.__dict__.get("on_success")
    if generated is not None and cls.__module__ == Request.__module__:
        setattr(cls, "on_success", wraps(generated)(wrap(generated)))  # noqa: B010 - mypy knows none


def escaped(report: Any) -> BaseException | None:
    """The exception that a pool of threads, of greenlets or of one task found no `Exception`.

    Such a pool reports it where Celery expects a result, which fails and leaves the task without an
    end. None for a result.
    """
    if not isinstance(report, ExceptionInfo):
        return None
    lost: BaseException = getattr(report.exception, "exc", report.exception)
    # The pool raises its own error in place of the one that the task's code has raised.
    return lost.__context__ or lost
