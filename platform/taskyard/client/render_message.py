"""Build a job's first message, which any worker of the app accepts, and its admission.

A template is the first message of a job type as text, with gaps for what differs between jobs. The
template is built once from Celery's own protocol and kombu's own format, so these stay the only
definition. To fill the template costs a tenth of building a message for every job.
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
from taskyard.client.check_request import CheckedRequest
from taskyard.client.job_ids import new_call_id
from taskyard.client.rendered_request import Rendered
from taskyard.records import OWN_ID, Admission, Publication, ReplyTo
from taskyard.settings import Settings
from taskyard.wire.letter_envelope import RawMessage
from taskyard.wire.redaction import redacted_repr
from taskyard.wire.stamp_header import HEADER, SCHEMA
from taskyard.wire.unconfirmed_message import Unsent

__all__ = ["MessageTemplate", "Renderer", "first_message", "reply_address"]

_SHOWN: Final = 1024
_JSON: Final = {"content_type": "application/json", "content_encoding": "utf-8"}
_GAP: Final = re.compile(r'"@@(\w+)@@"')
# The same as `json.dumps` of a text, without its overhead.
_quoted: Final = json.encoder.encode_basestring_ascii
_EMBED: Final = json.dumps({"callbacks": None, "errbacks": None, "chain": None, "chord": None})


class Renderer:
    """Builds everything that is sent for a checked request; threads may share it.

    If records and broker are in one Redis, the admission script publishes the message.
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
        """Build what is sent for a request; `place` is its position in a `call` of many.

        If the reply is lost, the request is sent again under the same call id and position.
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
            reply_address(request),
        )
        return Rendered(request, admission, message)

    def render_all(self, requests: Iterable[CheckedRequest]) -> Iterator[Rendered]:
        """Yield the requests of one call, each built when it is needed."""
        call = new_call_id()
        return (self.render(request, place, call) for place, request in enumerate(requests))

    def _publication(self, request: CheckedRequest) -> tuple[Publication, RawMessage | None]:
        """Return what the admission script publishes, or keeps until the broker confirms it.

        The message in the result is None if the script itself publishes the message.
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


def reply_address(request: CheckedRequest) -> ReplyTo | None:
    """Return where the service waits for a reply, with the correlation id of the first message."""
    return ReplyTo(request.reply_to, request.job_id) if request.reply_to else None


def first_message(app: Celery, request: CheckedRequest) -> RawMessage:
    """Return the first message of a job in Celery's protocol 2.

    Flower shows redacted arguments; the body is not redacted.
    """
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
    """Return the body of a message, and the message without it, as Celery builds them."""
    task = app.amqp.as_task_v2(job_id, job_type, kwargs={}, kwargsrepr="{}", **facts)
    message = RawMessage(
        body=b"", headers=dict(task.headers), properties=dict(task.properties), **_JSON
    )
    return task.body, message


class MessageTemplate:
    """The template of first messages for one job type, queue and priority step."""

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
        # Fixed texts and the names of the gaps between them, in turn; the stamp separates head and
        # tail.
        head, _, tail = document.partition('"@@stamp@@"')
        self._head, self._tail = _GAP.split(head), _GAP.split(tail)

    def fill(self, request: CheckedRequest) -> tuple[str, str]:
        """Return the text of a job's first message in two parts: before its epoch, and after it."""
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
