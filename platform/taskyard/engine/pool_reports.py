"""Convert what Celery's pools report about an attempt to the values of `ports`.

A pool reports an exception: the one that the child raised, or its own for a process that ended. It
may report a failure as a success. Celery generates a subclass of `Request` for each task, whose
`on_success` calls no base class.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery.worker.request import Request

from taskyard.engine.ports import NoOutcome, OverTime, Report, Reported, Unanswered
from taskyard.runner import Unreachable
from taskyard.runner.settlement_rules import reported_end

__all__ = [
    "Terminated",
    "TimeLimitExceeded",
    "WorkerLostError",
    "escaped",
    "over_time",
    "read_report",
    "reportable_failure",
    "unwrapped",
    "wrap_on_success",
]


def wrap_on_success(cls: type, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Wrap the `on_success` of a class that Celery has generated; leave any other class alone."""
    generated = cls.__dict__.get("on_success")
    if generated is not None and cls.__module__ == Request.__module__:
        setattr(cls, "on_success", wraps(generated)(wrap(generated)))  # noqa: B010 - mypy does not know the attribute


def escaped(report: Any) -> BaseException | None:
    """Return the exception that the pool reports as a result; None for a real result.

    Pools of threads and greenlets, and solo, report an exception that is no subclass of `Exception`
    in this way. Celery would take it for a result, fail to read it, and report no end of the task.
    """
    if not isinstance(report, ExceptionInfo):
        return None
    lost: BaseException = getattr(report.exception, "exc", report.exception)
    # The pool raises its own error in place of the one from the task's code.
    return lost.__context__ or lost


def unwrapped(error: Any) -> BaseException:
    """Return the exception without the wrapper that the pool put around it."""
    inner: BaseException = error.exc if isinstance(error, ExceptionWithTraceback) else error
    return inner


def read_report(
    error: BaseException, is_no_outcome: Callable[[BaseException], bool], *, stopped: bool
) -> Report:
    """Return the report of an attempt that raised `error`.

    `stopped` says that this worker ended the attempt, and has settled that. `is_no_outcome`
    decides about errors that neither the pool nor the runner raises.
    """
    if isinstance(error, TimeLimitExceeded):
        return OverTime(str(error))
    evidence = ""
    if not stopped:
        if isinstance(error, Unreachable):
            return Unanswered(error)
        evidence = _evidence_of_loss(error, is_no_outcome)
    return NoOutcome(evidence) if evidence else Reported(reported_end(error))


def _evidence_of_loss(error: BaseException, is_no_outcome: Callable[[BaseException], bool]) -> str:
    """Return how a process without a reported outcome ended; empty if it reported one."""
    if isinstance(error, SystemExit | WorkerLostError):
        return str(error) or type(error).__name__
    if isinstance(error, Terminated):
        # A process that survived the end of one job, cut off with a connection, keeps that mark in
        # the pool: when another job kills it, the pool reports a false revocation.
        return f"the process of the job was ended, and Taskyard did not request that: {error!r}"
    if is_no_outcome(error):
        return f"the process of the job could not report its outcome: {error!r:.500}"
    return ""


def over_time(limit_s: float) -> OverTime:
    """Return the report of an attempt that exceeded its hard time limit, `limit_s` seconds."""
    return OverTime(str(TimeLimitExceeded(limit_s)))


def reportable_failure(exc_info: Any, error: BaseException) -> Any:
    """Return the failure of an attempt in a form that Celery can report.

    A MemoryError from the child would end the worker, although only one job failed.
    """
    if not isinstance(error, MemoryError):
        return exc_info
    try:
        raise RuntimeError(f"MemoryError: {error}")  # noqa: TRY301 - Celery needs a raised exception
    except RuntimeError:
        return ExceptionInfo()
