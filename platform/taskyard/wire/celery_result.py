"""Celery's document of a result in JSON, for results that no worker of Celery encodes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

__all__ = ["encoded_result"]


def encoded_result(job_id: str, value: Any) -> bytes:
    """Encode a value as a worker does: the same length, the same errors for values without JSON.

    Raises `ValueError` and `TypeError`.
    """
    date = datetime.now(UTC).isoformat()
    meta = {"status": "SUCCESS", "result": value, "traceback": None, "children": []}
    return json.dumps({**meta, "date_done": date, "task_id": job_id}, allow_nan=False).encode()
