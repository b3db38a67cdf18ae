"""A failure as the main process sees it: an exception whose frames are only text any more."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import PurePath
from typing import Any, Final

from taskyard.jobs.outcomes import Failure
from taskyard.runner import describe_failure
from taskyard.runner.failures import TRACEBACK_LIMIT
from taskyard.wire.exact import clean_text
from taskyard.wire.redaction import redact_text

__all__ = ["failure_seen"]

_FRAME: Final = re.compile(r'^\s*File "(.+)", line \d+, in (\S+)', re.MULTILINE)


def failure_seen(job_type: str, error: BaseException, trace: Any) -> Failure:
    """The facts of an exception that came from another process with its traceback as text."""
    text = clean_text(str(trace or ""))
    described = describe_failure(job_type, error)
    frames = "|".join(f"{PurePath(file).name}:{name}" for file, name in _FRAME.findall(text))
    mark = hashlib.sha256(f"{job_type}|{type(error).__name__}|{frames}".encode()).hexdigest()[:16]
    return replace(described, traceback=redact_text(text)[-TRACEBACK_LIMIT:], fingerprint=mark)
