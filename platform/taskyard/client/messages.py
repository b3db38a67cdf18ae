"""A job's first message: what any worker of the app would accept, and what admission does with it.

A template holds the first message of a job type as text with gaps: what differs from job to job is
filled in. Built once from Celery's own protocol and kombu's own format, so that both stay the
authority on them; filling it costs a tenth of building it again for every job.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from celery import Celery

from taskyard.broker import BatchPublisher, RedisPublisher, encode
from taskyard.broker.connection import same_redis
from taskyard.client.ids import new_call_id
from taskyard.client.rendered import Rendered
from taskyard.client.requests import CheckedRequest
from taskyard.records import OWN_ID, Admission, Publication
from taskyard.settings import Settings
from taskyard.wire.headers import HEADER, SCHEMA
from taskyard.wire.letters import RawMessage
from taskyard.wire.redaction import redacted_repr
from taskyard.wire.unsent import Unsent

__all__ = ["MessageTemplate", "Renderer", "first_message"]

_SHOWN: Final = 1024
_JSON: Final = {"content_type": "application/json", "content_encoding": "utf-8"}
_GAP: Final = re.compile(r'"@@(\w+)@@"')
# What `json.dumps` does with a text, without the way there.
_quoted: Final = json.encoder.encode_basestring_ascii
_EMBED: Final = json.dumps({"callbacks": None, "errbacks": None, "chain": None, "chord": None})


class Renderer:
    """Makes of a checked request all that is sent of it; threads may share it.

    Where records and broker share one Redis, admission's own script publishes the message.
    """

    def __init__(
        self, settings: Settings, publisher: BatchPublisher, app: Callable[[], Celery]
    ) -> None:
        self._publisher: RedisPublisher | None = None
        if isinstance(publisher, RedisPublisher) and same_redis(settings):
            self._publisher = publisher
        self._app = app
        self._templates: dict[tuple[str, str, int], MessageTemplate] = {}

    def render(self, request: CheckedRequest, place: int = 0, call: str = "") -> Rendered:
        """Render a request; it goes under its `place` in a `call` of many.

        Where the reply is lost, it is asked for again by that name.
        """
        publication, message = self._publication(request)
        admission = Admission(
            request.job_id,
            request.job_type.name,
            request.queue,
            request.priority,
            request.unique_for_s,
            publication,
            f"{call or new_call_id()}{place}" if request.keyed else OWN_ID,
        )
        return Rendered(request, admission, message)

    def render_all(self, requests: Iterable[CheckedRequest]) -> Iterator[Rendered]:
        """The requests of one call, each when it is asked for."""
        call = new_call_id()
        return (self.render(request, place, call) for place, request in enumerate(requests))

    def _publication(self, request: CheckedRequest) -> tuple[Publication, RawMessage | None]:
        """What admission's script publishes, or keeps until the broker has confirmed the message.

        The message is None where the script publishes it.
        """
        publisher = self._publisher
        if publisher is None:
            message = first_message(self._app(), request)
            return _kept(request, message), message
        place = publisher.place(request.queue, request.priority)
        text = self._template(request.job_type.name, place).fill(request)
        return publisher.publication(place, text, request.countdown_s), None

    def _template(self, job_type: str, place: tuple[str, int]) -> MessageTemplate:
        key = (job_type, *place)
        template = self._templates.get(key)
        if template is None:
            template = self._templates[key] = MessageTemplate(self._app(), *key)
        return template


def _kept(request: CheckedRequest, message: RawMessage) -> Publication:
    policy = None if request.policy is None else dict(request.policy)
    unsent = Unsent(message=message, countdown_s=request.countdown_s, policy=policy).encode()
    return Publication("", unsent, "", "", "", 0)


def first_message(app: Celery, request: CheckedRequest) -> RawMessage:
    """Celery's protocol 2; what Flower shows of the arguments is redacted, the body is not."""
    body, message = _built(
        app,
        request.job_id,
        request.job_type.name,
        args=[request.payload],
        expires=_expires(request),
        reply_to=request.reply_to,
        argsrepr=_argsrepr(request),
    )
    return message.model_copy(update={"body": json.dumps(body).encode()})


def _built(app: Celery, job_id: str, job_type: str, **facts: Any) -> tuple[Any, RawMessage]:
    """Body and message, still without it, as Celery makes them."""
    task = app.amqp.as_task_v2(job_id, job_type, kwargs={}, kwargsrepr="{}", **facts)
    message = RawMessage(
        body=b"", headers=dict(task.headers), properties=dict(task.properties), **_JSON
    )
    return task.body, message


class MessageTemplate:
    """For one job type, queue (the broker's name) and priority step."""

    def __init__(self, app: Celery, job_type: str, queue: str, step: int) -> None:
        _, message = _built(
            app,
            "@@id@@",
            job_type,
            expires="@@expires@@",
            reply_to="@@reply_to@@",
            argsrepr="@@argsrepr@@",
        )
        headers = {**message.headers, HEADER: "@@stamp@@"}
        document = encode(message, queue=queue, step=step, headers=headers, tag="@@id@@")
        document = document.replace('"body": ""', '"body": "@@body@@"', 1)
        # Texts and the names of what stands between them, in turns; the stamp parts head and tail.
        head, _, tail = document.partition('"@@stamp@@"')
        self._head, self._tail = _GAP.split(head), _GAP.split(tail)

    def fill(self, request: CheckedRequest) -> tuple[str, str]:
        """The document of the first message up to its epoch, and from behind it."""
        policy, expires, reply_to = request.policy, _expires(request), request.reply_to
        body = f"[[{request.payload_json}], {{}}, {_EMBED}]".encode()
        override = "" if policy is None else f', "policy": {json.dumps(dict(policy))}'
        gaps = {
            "id": f'"{request.job_id}"',
            "body": f'"{base64.b64encode(body).decode("ascii")}"',
            "argsrepr": _quoted(_argsrepr(request)),
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


def _argsrepr(request: CheckedRequest) -> str:
    return f"({redacted_repr(request.payload)},)"[:_SHOWN]


def _expires(request: CheckedRequest) -> str | None:
    moment = request.expires
    if isinstance(moment, float):
        moment = datetime.now(UTC) + timedelta(seconds=moment)
    return None if moment is None else moment.isoformat()
