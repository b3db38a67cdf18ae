"""Find a completed task's result again, for a continuation that must be repeated.

The module is separate because it asks the app's result backend, and the runner asks the records.
"""

from __future__ import annotations

from typing import Any

from celery import states
from kombu.utils.json import dumps, loads

from taskyard.runner import JobSkipped
from taskyard.wire.redacted_logs import logger

__all__ = ["keep", "recall", "recall_failure"]

log = logger(__name__)


def keep(value: Any, limit: int) -> bytes:
    """Return the result as the record keeps it; empty if it is not JSON or over `limit` bytes."""
    try:
        kept = dumps({"result": value}).encode()
    except (TypeError, ValueError, RecursionError):
        return b""
    return kept if len(kept) <= limit else b""


def recall(task: Any, job_id: str, kept: bytes | None) -> Any:
    """Return the stored result: from the app's own backend, else from the record.

    Raises `JobSkipped` if neither has the result.
    """
    meta = _stored(task, job_id)
    if meta.get("status") == states.SUCCESS:
        return meta["result"]
    if kept:
        return loads(kept)["result"]
    raise JobSkipped(f"{JobSkipped.DONE}; neither the result backend nor the record has its result")


def recall_failure(task: Any, job_id: str) -> BaseException | None:
    """Return the exception that the app's own backend has stored; None if it has none."""
    meta = _stored(task, job_id)
    error = meta.get("result")
    failed = meta.get("status") == states.FAILURE
    return error if failed and isinstance(error, BaseException) else None


def _stored(task: Any, job_id: str) -> dict[str, Any]:
    # A backend that is not persistent (rpc) delivers a result once, to the process that waits.
    if task.ignore_result or not task.backend.persistent:
        return {}
    try:
        return dict(task.backend.get_task_meta(job_id))
    except Exception as error:  # noqa: BLE001 - any backend's errors; the record's copy is next
        log.warning(
            "job %s is completed, and the app's result backend did not return its result; the "
            "copy in the record is used if there is one: %s",
            job_id,
            error,
            extra={"action": "result_not_recalled", "job_id": job_id},
        )
        return {}
