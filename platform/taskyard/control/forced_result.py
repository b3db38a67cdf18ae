"""Check the result and the summary with which an operator completes a job.

Alone because `Control` and the command line use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskyard.control.live_verb import SUMMARY
from taskyard.control.operator_reasons import check_reason
from taskyard.errors import InvalidPayload, InvalidReason
from taskyard.wire.celery_result import encoded_result

__all__ = ["forced_result"]


def forced_result(job_id: str, most: int, *, summary: str | None, result: Any) -> Mapping[str, Any]:
    """Return what the relay needs to complete a job: Celery's encoded result, and the summary.

    Raises `InvalidPayload` for a result that is not JSON or has more than `most` bytes, and for a
    summary that does not say how the job was resolved.
    """
    try:
        said = check_reason(summary)
    except InvalidReason as error:
        raise InvalidPayload(f"the summary must say how the job was resolved: {error}") from None
    try:
        encoded = encoded_result(job_id, result)
    except (TypeError, ValueError) as error:
        raise InvalidPayload(
            f"expected a result that is JSON, got {result!r:.80}: {error}"
        ) from None
    if len(encoded) > most:
        raise InvalidPayload(
            f"expected a result of at most {most} bytes (max_result_bytes), got {len(encoded)}. "
            "Store it elsewhere, and give its address as the result"
        )
    return {"result": encoded.decode(), SUMMARY: said}
