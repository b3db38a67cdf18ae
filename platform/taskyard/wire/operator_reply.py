"""The reply to a service whose job an operator has ended: no handler replies then.

Alone because the relay and the yard in memory send the same message.
"""

from __future__ import annotations

import json
import uuid
from typing import Any, Final

from taskyard.wire.letter_envelope import RawMessage

__all__ = ["REPLY_HEADER", "REPLY_SCHEMA", "reply_message"]

REPLY_HEADER: Final = "taskyard_reply"
"""The header that says which version of the body this is."""
REPLY_SCHEMA: Final = 1


def reply_message(
    request_id: uuid.UUID,
    job_id: str,
    state: str,
    correlation_id: str,
    *,
    result: bytes | None = None,
    summary: str | None = None,
) -> RawMessage:
    """Return the reply; every repeat for one request has the same message id.

    `result` is Celery's encoded result of a forced completion. The operator's reason is left out,
    since it may be confidential.
    """
    body: dict[str, Any] = {"job_id": job_id, "state": state}
    if result is not None:
        body["result"] = json.loads(result)["result"]
    if summary is not None:
        body["summary"] = summary
    message_id = str(uuid.uuid5(request_id, "reply"))
    return RawMessage(
        body=json.dumps(body).encode(),
        headers={REPLY_HEADER: REPLY_SCHEMA},
        properties={"correlation_id": correlation_id, "message_id": message_id},
        content_type="application/json",
        content_encoding="utf-8",
    )
