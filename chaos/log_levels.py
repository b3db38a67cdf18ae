"""Imported by the workers before the handlers: two lines a job would cost more than the job."""

from __future__ import annotations

import logging

__all__: list[str] = []

for name in ("celery.worker.strategy", "celery.app.trace"):
    logging.getLogger(name).setLevel(logging.WARNING)
