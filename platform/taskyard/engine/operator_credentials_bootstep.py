"""A worker that holds an operator's credential does not start, since its jobs could use it."""

from __future__ import annotations

import os
from typing import Any

from celery import bootsteps

from taskyard.errors import InvalidSettings
from taskyard.settings import refuse_operator_credentials

__all__ = ["RefuseCredentials"]


class RefuseCredentials(bootsteps.Step):  # type: ignore[misc]  # Celery has no types
    """Ends the worker's start with one sentence, before its processes are forked."""

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        try:
            refuse_operator_credentials(worker.app.taskyard.settings, os.environ)
        except InvalidSettings as error:
            raise SystemExit(f"taskyard: {error}") from None
