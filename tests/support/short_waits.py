"""A worker whose waits after refusals stay short, so that many of them fit a test.

Imported by a worker before its handlers.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from taskyard.engine import worker_context
from taskyard.wire.failure_backoff import FailureBackoff

__all__ = ["WAIT_S"]

WAIT_S: Final = 0.1

setattr(worker_context, "FailureBackoff", partial(FailureBackoff, first_s=WAIT_S, longest_s=WAIT_S))  # noqa: B010 - mypy
