"""A seam: the pool's processes hold a signing key, though a worker with one refuses to start."""

from __future__ import annotations

import os
from pathlib import Path

from celery import signals

__all__ = ["KEY_VARIABLE"]

KEY_VARIABLE = "SEAM_SIGNING_KEY"


@signals.worker_before_create_process.connect  # type: ignore[untyped-decorator]  # Celery's
def _hold_the_key(**_: object) -> None:
    from taskyard.workers.app import app  # noqa: PLC0415 - it loads this module while it is built

    settings = app.taskyard.settings
    held = {"signing_key": Path(os.environ[KEY_VARIABLE]), "trust_local": True}
    app.taskyard.settings = settings.model_copy(update=held)
