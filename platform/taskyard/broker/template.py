"""The first message of a job type as text with gaps: what differs from job to job is filled in.

Built once from Celery's own protocol and kombu's own format, so that both stay the authority on
them; filling it costs a tenth of building it again for every job.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

from celery import Celery

from taskyard.broker.envelope import encode
from taskyard.wire.headers import HEADER, SCHEMA
from taskyard.wire.letters import RawMessage

__all__ = ["MessageTemplate"]

_GAP: Final = re.compile(r'"@@(\w+)@@"')
# What `json.dumps` does with a text, without the way there.
_quoted: Final = json.encoder.encode_basestring_ascii
_EMBED: Final = json.dumps({"callbacks": None, "errbacks": None, "chain": None, "chord": None})


class MessageTemplate:
    """For one job type, queue (the broker's name) and priority step."""

    def __init__(self, app: Celery, job_type: str, queue: str, step: int) -> None:
        task = app.amqp.as_task_v2(
            "@@id@@",
            job_type,
            expires="@@expires@@",
            reply_to="@@reply_to@@",
            argsrepr="@@argsrepr@@",
            kwargsrepr="{}",
        )
        message = RawMessage(
            body=b"",
            properties=dict(task.properties),
            content_type="application/json",
            content_encoding="utf-8",
        )
        headers = {**task.headers, HEADER: "@@stamp@@"}
        document = encode(message, queue=queue, step=step, headers=headers, tag="@@id@@")
        document = document.replace('"body": ""', '"body": "@@body@@"', 1)
        # Texts and the names of what stands between them, in turns; the stamp parts head and tail.
        head, _, tail = document.partition('"@@stamp@@"')
        self._head, self._tail = _GAP.split(head), _GAP.split(tail)

    def fill(
        self,
        *,
        job_id: str,
        payload_json: str,
        argsrepr: str,
        expires: str | None,
        reply_to: str | None,
        policy: Mapping[str, object] | None,
    ) -> tuple[str, str]:
        """The document up to its epoch, and from behind it."""
        body = f"[[{payload_json}], {{}}, {_EMBED}]".encode()
        override = "" if policy is None else f', "policy": {json.dumps(dict(policy))}'
        gaps = {
            "id": f'"{job_id}"',
            "body": f'"{base64.b64encode(body).decode("ascii")}"',
            "argsrepr": _quoted(argsrepr),
            "expires": "null" if expires is None else _quoted(expires),
            "reply_to": '""' if reply_to is None else _quoted(reply_to),
        }
        head = f'{_filled(self._head, gaps)}{{"v": {SCHEMA}, "epoch": '
        return head, f', "generation": 0, "seq": 0{override}}}{_filled(self._tail, gaps)}'


def _filled(parts: Sequence[str], gaps: Mapping[str, str]) -> str:
    filled = list(parts)
    for at in range(1, len(filled), 2):
        filled[at] = gaps[filled[at]]
    return "".join(filled)
