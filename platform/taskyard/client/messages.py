"""A checked request as the Celery message that any worker of the app would accept."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from celery import Celery

from taskyard.broker.template import MessageTemplate
from taskyard.client.requests import CheckedRequest
from taskyard.wire.letters import RawMessage
from taskyard.wire.redaction import redacted_repr

__all__ = ["fill", "first_message"]

_SHOWN: Final = 1024


def first_message(app: Celery, request: CheckedRequest) -> RawMessage:
    """Celery's protocol 2; what Flower shows of the arguments is redacted, the body is not."""
    task = app.amqp.as_task_v2(
        request.job_id,
        request.job_type.name,
        args=[request.payload],
        kwargs={},
        expires=_expires(request),
        reply_to=request.reply_to,
        argsrepr=_argsrepr(request),
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


def fill(template: MessageTemplate, request: CheckedRequest) -> tuple[str, str]:
    """The same message from its job type's template, as text before and behind the epoch."""
    return template.fill(
        job_id=request.job_id,
        payload_json=request.payload_json,
        argsrepr=_argsrepr(request),
        expires=_expires(request),
        reply_to=request.reply_to,
        policy=request.policy,
    )


def _argsrepr(request: CheckedRequest) -> str:
    return f"({redacted_repr(request.payload)},)"[:_SHOWN]


def _expires(request: CheckedRequest) -> str | None:
    moment = request.expires
    if isinstance(moment, float):
        moment = datetime.now(UTC) + timedelta(seconds=moment)
    return None if moment is None else moment.isoformat()
