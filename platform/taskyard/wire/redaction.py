"""Redaction: secrets are masked in what is shown and logged, never in what is replayed."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

__all__ = ["MASK", "redact", "redact_text", "redact_url"]

MASK: Final = "[redacted]"
_SECRET_KEY: Final = re.compile(
    r"pass(word|wd|phrase)?$|secret|token|api[-_]?key|authorization|credential|cookie|private[-_]?key",
    re.IGNORECASE,
)
_SECRET_PAIR: Final = re.compile(
    r"(?i)\b(\w*(?:password|passwd|secret|token|api[-_]?key)\w*)(\"?\s*[=:]\s*\"?)([^\s\"',;&]+)"
)
_URL_PASSWORD: Final = re.compile(r"(\w+://[^/\s:@]*:)([^@\s/]+)(@)")
_MAX_DEPTH: Final = 32


def redact(value: Any, depth: int = 0) -> Any:
    """A copy of JSON-like `value` with the values of secret-looking keys masked."""
    if depth > _MAX_DEPTH:
        return MASK
    if isinstance(value, dict):
        return {
            key: MASK
            if isinstance(key, str) and _SECRET_KEY.search(key)
            else redact(item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(item, depth + 1) for item in value]
    return redact_text(value) if isinstance(value, str) else value


def redact_text(text: str) -> str:
    """Free text (messages, tracebacks) with `key=value` secrets and URL passwords masked."""
    return _URL_PASSWORD.sub(rf"\1{MASK}\3", _SECRET_PAIR.sub(rf"\1\2{MASK}", text))


def redact_url(url: str) -> str:
    """A URL fit for logs: its password masked."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:{MASK}@{host}"))
