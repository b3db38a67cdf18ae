"""Redaction: secrets are masked in what is shown and logged, never in what is replayed."""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ["MASK", "redact", "redact_text", "redact_url"]

MASK: Final = "[redacted]"
_WORDS: Final = (
    r"pass(?:word|wd|phrase|code)?s?(?:$|[_-])|pwd|secret|token|api[-_]?key|authorization|"
    r"credential|cookie|private[-_]?key|passwords?(?:[_-]|$)|signature"
)
_SECRET_KEY: Final = re.compile(_WORDS, re.IGNORECASE)
_NAMES: Final = r"[\w-]*(?:passwords?|passwd|passphrase|pwd|secret|token|api[-_]?key)[\w-]*"
_QUOTED_PAIR: Final = re.compile(
    rf"(?i)((?P<open>[\"']?)\b{_NAMES}(?P=open)\s*[=:]\s*)(?P<quote>[\"'])(?:\\.|(?!(?P=quote)).)*(?P=quote)"
)
_BARE_PAIR: Final = re.compile(rf"(?i)([\"']?\b{_NAMES}[\"']?\s*[=:]\s*)(?![\"'])([^\s,;&}}]+)")
_AUTHORIZATION: Final = re.compile(
    r"(?i)(authorization[\"']?\s*[=:]\s*[\"']?(?:basic|bearer|digest|token)?\s*)([^\s\"',;]+)"
)
_BEARER: Final = re.compile(r"(?i)\b(bearer\s+)([\w.~+/=-]{8,})")
# Greedy to the last @ before a space or quote: a password may hold @, / and : unescaped.
_URL_PASSWORD: Final = re.compile(r"(?i)(\b[a-z][\w+.-]*://[^\s/:@\"']*:)([^\s\"']+)(@)")
_DEEPEST: Final = 32


def redact(value: Any, depth: int = 0) -> Any:
    """A copy of JSON-like `value` with the values of secret-looking keys masked."""
    if depth > _DEEPEST:
        return MASK
    if isinstance(value, dict):
        return {key: _entry(key, item, depth) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item, depth + 1) for item in value]
    return redact_text(value) if isinstance(value, str) else value


def _entry(key: Any, item: Any, depth: int) -> Any:
    name = key.decode("utf-8", "replace") if isinstance(key, bytes) else key
    if isinstance(name, str) and _SECRET_KEY.search(name):
        return MASK
    return redact(item, depth + 1)


def redact_text(text: str) -> str:
    """Free text (messages, tracebacks) with pairs of secret names, tokens and passwords masked."""
    if not any(sign in text for sign in ("=", ":", "earer", "EARER")):
        return text
    text = _URL_PASSWORD.sub(rf"\1{MASK}\3", text)
    text = _AUTHORIZATION.sub(rf"\1{MASK}", text)
    text = _BEARER.sub(rf"\1{MASK}", text)
    text = _QUOTED_PAIR.sub(rf"\1{MASK}", text)
    return _BARE_PAIR.sub(rf"\1{MASK}", text)


def redact_url(url: str) -> str:
    """A URL fit for logs: its password masked, in the authority and in the query."""
    return redact_text(url)
