"""A checked request as the Celery message that any worker of the app would accept."""

from __future__ import annotations

import json
from typing import Any, Final

from celery import Celery

from taskyard.client.requests import CheckedRequest
from taskyard.wire.letters import RawMessage
from taskyard.wire.redaction import redact

__all__ = ["first_message"]

_SHOWN: Final = 1024


def first_message(app: Celery, request: CheckedRequest) -> RawMessage:
    """Celery's protocol 2; what Flower shows of the arguments is redacted, the body is not."""
    task = app.amqp.as_task_v2(
        request.job_id,
        request.job_type.name,
        args=[request.payload],
        kwargs={},
        expires=request.expires,
        reply_to=request.reply_to,
        argsrepr=repr((redact(request.payload),))[:_SHOWN],
        kwargsrepr="{}",
    )
    properties: dict[str, Any] = dict(task.properties)
    return RawMessage(
        body=json.dumps(task.body).encode(),
        headers=dict(task.headers),
        properties=properties,
        content_type="application/json",
        content_encoding="utf-8",
    )
