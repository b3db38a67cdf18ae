"""The worker's log: whoever writes to it, a secret does not stand there."""

from __future__ import annotations

import io
import logging

import pytest
from celery import Celery, signals

from taskyard.workers.logs import mask_secrets


def fail() -> None:
    raise ConnectionError("postgresql://app:hunter2@db/shop refused")


@pytest.mark.parametrize("signal", [signals.after_setup_logger, signals.after_setup_task_logger])
def test_what_celery_logs_of_a_handlers_error_is_masked(signal: signals.Signal) -> None:
    mask_secrets()
    mask_secrets()
    page, log = io.StringIO(), logging.Logger("celery.under_test")
    log.addHandler(logging.StreamHandler(page))
    signal.send(sender=Celery, logger=log, loglevel=20, logfile=None, format="", colorize=False)
    try:
        fail()
    except ConnectionError:
        log.exception("Task raised unexpected: %s", "token=hunter2")
    assert "hunter2" not in page.getvalue()
    assert "ConnectionError: postgresql://app:[redacted]@db/shop refused" in page.getvalue()
