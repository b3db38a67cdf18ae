"""The worker's log: without secrets from handlers' errors and output, and from its start on."""

from __future__ import annotations

import logging
from typing import Any

from celery import signals

from taskyard.wire.redacted_logs import logger as masked_logger
from taskyard.wire.redacted_logs import redact_handlers

__all__ = ["log_at_start", "mask_secrets"]

log = masked_logger(__name__)


def log_at_start(failure: str) -> None:
    """Log an error of building the app once Celery has set up logging; before, it is lost."""

    def report(**_: Any) -> None:
        log.error("%s", failure, extra={"action": "handlers_not_imported"})

    signals.after_setup_logger.connect(report, weak=False, dispatch_uid=f"taskyard-start-{failure}")


def mask_secrets() -> None:
    """Make every handler that Celery sets up mask secrets; calling it again changes nothing."""
    for signal in (signals.after_setup_logger, signals.after_setup_task_logger):
        signal.connect(_mask, dispatch_uid="taskyard.workers.logs")


def _mask(*, logger: logging.Logger, **_: Any) -> None:
    redact_handlers(logger)
