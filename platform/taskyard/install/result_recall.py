"""A completed task's result, for a continuation that must be repeated: where it is found again.

Alone because it asks the app's result backend, and the runner the records.
"""

from __future__ import annotations

from typing import Any

from celery import states
from kombu.utils.json import dumps, loads

from taskyard.runner import JobSkipped
from taskyard.wire.logs import logger

__all__ = ["keep", "recall", "recall_failure"]

log = logger(__name__)


def keep(value: Any, limit: int) -> bytes:
    """What the record keeps of a result: empty where it is no JSON or has over `limit` bytes."""
    try:
        kept = dumps({"result": value}).encode()
    except (TypeError, ValueError, RecursionError):
        return b""
    return kept if len(kept) <= limit else b""


def recall(task: Any, job_id: str, kept: bytes | None) -> Any:
    """The result from the app's own backend, else the record's; raises `JobSkipped` without."""
    meta = _stored(task, job_id)
    if meta.get("status") == states.SUCCESS:
        return meta["result"]
    if kept:
        return loads(kept)["result"]
    raise JobSkipped(f"{JobSkipped.DONE}; nothing kept its result")


def recall_failure(task: Any, job_id: str) -> BaseException | None:
    """The exception that the app's own backend has stored, None if it has none."""
    meta = _stored(task, job_id)
    error = meta.get("result")
    failed = meta.get("status") == states.FAILURE
    return error if failed and isinstance(error, BaseException) else None


def _stored(task: Any, job_id: str) -> dict[str, Any]:
    # A backend that is not persistent (rpc) hands a result out once, to who waits for it.
    if task.ignore_result or not task.backend.persistent:
        return {}
    try:
        return dict(task.backend.get_task_meta(job_id))
    except Exception as error:  # noqa: BLE001 - any backend's errors; the record's copy is next
        log.warning(
            "job %s: the result backend does not tell its result: %s",
            job_id,
            error,
            extra={"action": "result_not_recalled", "job_id": job_id},
        )
        return {}
