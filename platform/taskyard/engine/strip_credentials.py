"""Remove an operator's credential from a received message, before anything can show it.

If a message is published again for the same job (a retry, a delay), the original message is
published, because its next delivery needs the credential too.
"""

from __future__ import annotations

from typing import Any, Final

from celery.utils.saferepr import saferepr
from kombu.utils.json import dumps

from taskyard.engine.read_message import raw_message
from taskyard.wire.credential_argument import CREDENTIAL
from taskyard.wire.decoded_body import bytes_of
from taskyard.wire.letter_envelope import RawMessage

__all__ = ["credential_of", "message_to_publish", "take_credential"]

# On a message without its credential: the original form.
_AS_IT_CAME: Final = "taskyard_as_it_came"
# RabbitMQ's messages also have their headers among their properties.
_COPIED: Final = "application_headers"
_NEEDLE: Final = CREDENTIAL.encode()
_ESCAPE: Final = b"\\u00"  # JSON may write the name in escapes
_PLAIN: Final = ("utf-8", "ascii", "us-ascii", "binary")
_JSON: Final = "application/json"
_REPR_LENGTH: Final = 1024  # Celery's own


def take_credential(message: Any) -> None:
    """Move the credential of an operator from the message's body to a mark on the message.

    The credential is the argument `taskyard_credential`. If the body cannot be parsed as a
    task's in JSON, it is not changed, and its dead letter is masked.
    """
    if message.body is None or not _may_have_one(message):
        return
    kwargs = _kwargs_of(message)
    if kwargs is None or CREDENTIAL not in kwargs:
        return
    as_it_came = raw_message(message)
    found = kwargs.pop(CREDENTIAL)
    message.body, message.content_encoding = dumps(message.payload).encode(), "utf-8"
    message.came = None
    message.headers = {
        name: value for name, value in message.headers.items() if name != "compression"
    }
    if "kwargsrepr" in message.headers:
        message.headers["kwargsrepr"] = saferepr(kwargs, _REPR_LENGTH)
    if _COPIED in (message.properties or {}):
        message.properties = {**message.properties, _COPIED: message.headers}
    setattr(message, CREDENTIAL, found if isinstance(found, str) else "")
    setattr(message, _AS_IT_CAME, as_it_came)


def _may_have_one(message: Any) -> bool:
    """Return whether the body is to be parsed: most bodies are not, which is faster."""
    body = bytes_of(message.body)
    plain = (message.content_encoding or "utf-8").lower() in _PLAIN
    return not plain or _NEEDLE in body or _ESCAPE in body or b"\0" in body


def credential_of(message: Any) -> str | None:
    """Return the credential that was taken from the message; None if the message had none."""
    found: str | None = getattr(message, CREDENTIAL, None)
    return found


def message_to_publish(message: Any) -> RawMessage:
    """Return the original message with its credential, to be published again."""
    found: RawMessage | None = getattr(message, _AS_IT_CAME, None)
    return raw_message(message) if found is None else found


def _kwargs_of(message: Any) -> dict[str, Any] | None:
    """Return the named arguments in the decoded body, which the message keeps."""
    if message.content_type != _JSON:
        return None
    try:
        payload = message.payload
    except Exception:  # noqa: BLE001 - Celery itself reports what cannot be decoded
        return None
    if isinstance(payload, dict):  # Celery's protocol 1
        kwargs = payload.get("kwargs")
    elif isinstance(payload, list) and len(payload) > 1:
        kwargs = payload[1]
    else:
        kwargs = None
    return kwargs if isinstance(kwargs, dict) else None
