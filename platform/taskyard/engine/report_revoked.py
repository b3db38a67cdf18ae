"""Report to Celery that an operator has ended a job whose message no worker will take.

A worker that takes such a message stores the result, where the record has not done that, and lets
the job's chord fail. Where the message is removed from its queue, this does it.

Alone because `control`, which removes messages, may not import Celery.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import Celery
from celery.app.task import Context

from taskyard.backend.record_backend import DECIDED
from taskyard.errors import ServerRefused

__all__ = ["report_revoked"]


def report_revoked(
    app: Celery,
    job_id: str,
    *,
    headers: Mapping[str, Any],
    properties: Mapping[str, Any],
    embedded: Mapping[str, Any],
    why: str,
) -> None:
    """Store the result of a revoked task in the app's backend, and let its chord fail.

    A repeat changes nothing more. Raises `ServerRefused` with whatever the backend raised.
    """
    asked = {name: properties.get(name) for name in ("reply_to", "correlation_id")}
    request = Context({**headers, **embedded, **asked, "id": job_id, DECIDED: True})
    stores = not headers.get("ignore_result")
    try:
        app.backend.mark_as_revoked(job_id, why, request=request, store_result=stores)
    except Exception as error:
        url = app.backend.as_uri()
        raise ServerRefused(
            "the result backend", url, f"{type(error).__name__}: {error}"
        ) from error
