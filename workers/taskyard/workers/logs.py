"""The worker's log without secrets: Celery writes there what handlers raise, print and return."""

from __future__ import annotations

import logging
from typing import Any

from celery import signals

from taskyard.wire.logs import redact_handlers

__all__ = ["mask_secrets"]


def mask_secrets() -> None:
    """Have every handler that Celery sets up mask secrets; calling it again changes nothing."""
    for signal in (signals.after_setup_logger, signals.after_setup_task_logger):
        signal.connect(_mask, dispatch_uid="taskyard.workers.logs")


def _mask(*, logger: logging.Logger, **_: Any) -> None:
    redact_handlers(logger)
