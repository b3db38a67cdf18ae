"""The credential in an operator's message: which argument holds it, and how to remove it.

The message at the broker keeps its credential, because a worker verifies the credential at each
redelivery. Records, events, dead letters and logs never contain it.
"""

from __future__ import annotations

import re
from typing import Any, Final

from taskyard.wire.decompression import CompressionFault
from taskyard.wire.letter_envelope import RawMessage, plain_body
from taskyard.wire.redaction import CREDENTIAL_TEXT, MASK

__all__ = ["CREDENTIAL", "without_credential"]

CREDENTIAL: Final = "taskyard_credential"
# A message with a credential is small: what is larger unpacked carries none that a worker takes.
_UNPACKED_BYTES: Final = 262_144
_IN_TEXT: Final = re.compile(CREDENTIAL_TEXT)
# JSON may write any character as an escape; an even number of backslashes before it is text.
_ESCAPE: Final = re.compile(
    r"(?<!\\)((?:\\\\)*)\\u00(2[dDeE]|3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|5[fF])"
)
_ENCODINGS: Final = (
    "utf-8",
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
    "utf-32-le",
    "utf-32-be",
)
_IN_BYTES: Final = re.compile(CREDENTIAL_TEXT.encode())


def without_credential(message: RawMessage) -> RawMessage:
    """Return the message as a dead letter may store it; unchanged if it holds no credential.

    A compressed body is decompressed to mask the credential, and stays decompressed.
    """
    headers, properties = _masked(message.headers), _masked(message.properties)
    try:
        body = plain_body(message, _UNPACKED_BYTES)
    except CompressionFault:
        body = message.body
    masked = _IN_BYTES.sub(MASK.encode(), body) if b"v1." in body else body
    if masked == body:
        masked = _masked_in_other_spelling(body, message.content_encoding)
    if masked != body:
        headers = {name: value for name, value in headers.items() if name != "compression"}
    elif headers == message.headers and properties == message.properties:
        return message
    else:
        masked = message.body
    found = {"body": masked, "headers": headers, "properties": properties}
    return message.model_copy(update=found)


def _without_escapes(text: str) -> str:
    """Return JSON text whose escapes of characters that a credential has are the characters."""
    return _ESCAPE.sub(lambda found: found[1] + chr(int(found[2], 16)), text)


def _masked_in_other_spelling(body: bytes, encoding: str | None) -> bytes:
    """Return the body with a credential masked that is escaped, or in the text of another encoding.

    Such a body has a NUL, an escape, or an encoding that its message names.
    """
    named = (encoding or "utf-8").lower()
    if named in ("utf-8", "ascii", "binary") and b"\0" not in body and b"\\u00" not in body:
        return body
    for known in (named, *_ENCODINGS):
        try:
            text = _without_escapes(body.decode(known))
            masked = _IN_TEXT.sub(MASK, text)
            if masked != text:
                return masked.encode(known)
        except (LookupError, ValueError):
            continue
    return body


def _masked(value: Any) -> Any:
    """Return the value with credentials masked in every text, at any depth."""
    if isinstance(value, dict):
        return {name: _masked(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_masked(item) for item in value]
    if not isinstance(value, str) or "v1." not in value:
        return value
    return _IN_TEXT.sub(MASK, value)
