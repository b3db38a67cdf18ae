"""Describe a failure in the main process, where the traceback of the exception is only text."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

from celery.exceptions import MaxRetriesExceededError, Reject

from taskyard.jobs.attempt_outcomes import Failure
from taskyard.jobs.retry_policy import Category
from taskyard.runner import describe_failure
from taskyard.runner.exception_facts import TRACEBACK_LIMIT, fingerprint_of
from taskyard.wire.lossless_json import clean_text
from taskyard.wire.redaction import redact_text

__all__ = ["category_of", "failure_seen"]

_FRAME: Final = re.compile(r'^\s*File "(.+)", line \d+, in (\S+)', re.MULTILINE)


def failure_seen(job_type: str, error: BaseException, trace: Any) -> Failure:
    """Return the facts of an exception from another process, with its traceback as text."""
    text = clean_text(str(trace or ""))
    described = describe_failure(job_type, error)
    mark = fingerprint_of(job_type, error, _FRAME.findall(text))
    return replace(described, traceback=redact_text(text)[-TRACEBACK_LIMIT:], fingerprint=mark)


def category_of(code: str, error: BaseException, *, retried: bool, lost: bool = False) -> Category:
    """Return why a task of an installed app failed for good, as a category.

    `code` is that of the failure; `lost` says that the task's process has ended.
    """
    if isinstance(error, Reject):
        return Category.REJECTED
    if lost:
        return Category.INTERNAL_ERROR
    if code == "timeout":
        return Category.TIMEOUT
    if isinstance(error, MaxRetriesExceededError) or retried:
        return Category.RETRY_EXHAUSTED
    return Category.NON_RETRYABLE
