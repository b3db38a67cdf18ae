"""Convert an exception to a failure of limited size: code, texts and fingerprint."""

from __future__ import annotations

import hashlib
import resource
import sys
import traceback
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePath
from types import TracebackType
from typing import Final

from taskyard.errors import CodedError, KillSwitchOn
from taskyard.jobs.attempt_outcomes import Failure
from taskyard.jobs.error_codes import code_of
from taskyard.wire.lossless_json import clean_text, pack
from taskyard.wire.redaction import redact_text

__all__ = [
    "MESSAGE_LIMIT",
    "TRACEBACK_LIMIT",
    "describe_failure",
    "failure_here",
    "fingerprint_of",
]

MESSAGE_LIMIT: Final = 2_000
TRACEBACK_LIMIT: Final = 16_000


def describe_failure(job_type: str, error: BaseException) -> Failure:
    """Return code, texts and fingerprint of an exception.

    A long traceback keeps its last lines. Secrets are masked before the texts are cut, because
    half of a URL cannot be recognized as one.
    """
    coded = error if isinstance(error, CodedError) else None
    text = _trace(error)
    return Failure(
        code=code_of(error),
        error_class=type(error).__name__,
        message=redact_text(clean_text(_message(error)))[:MESSAGE_LIMIT],
        traceback=redact_text(clean_text(text))[-TRACEBACK_LIMIT:],
        fingerprint=fingerprint_of(job_type, error, _frames(error.__traceback__)),
        retry_after_s=_retry_after_s(error),
        details=None if coded is None else {str(k): pack(v) for k, v in coded.details.items()},
    )


def _retry_after_s(error: BaseException) -> float | None:
    if isinstance(error, KillSwitchOn):
        return error.retry_after
    return error.retry_after_s if isinstance(error, CodedError) else None


def failure_here(job_type: str, error: BaseException) -> Failure:
    """Return the facts of an exception that this process raised.

    A `MemoryError` also gets the memory that the process used.
    """
    failure = describe_failure(job_type, error)
    if not isinstance(error, MemoryError):
        return failure
    # In bytes on macOS, elsewhere in KiB.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return replace(failure, details={"process_peak_memory_mib": peak // 1_048_576})


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as broken:  # noqa: BLE001 - a handler's __str__ may raise anything
        return f"(the text of this exception cannot be read: {type(broken).__name__})"


def _trace(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except BaseException as broken:  # noqa: BLE001 - it calls methods of the handler's classes
        return f"(the traceback of this exception cannot be read: {type(broken).__name__})"


def fingerprint_of(job_type: str, error: BaseException, frames: Iterable[tuple[str, str]]) -> str:
    """Return a fingerprint that groups equal failures: job type, exception class and code path.

    Line numbers are left out, so that an edit elsewhere in a file changes no fingerprint.
    `frames` holds file and function of each frame, outermost first.
    """
    way = "|".join(f"{PurePath(file).name}:{function}" for file, function in frames)
    return hashlib.sha256(f"{job_type}|{type(error).__name__}|{way}".encode()).hexdigest()[:16]


def _frames(trace: TracebackType | None) -> list[tuple[str, str]]:
    return [(frame.filename, frame.name) for frame in traceback.extract_tb(trace)]
