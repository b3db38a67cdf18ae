"""Redaction: secrets are masked in what is shown and logged, never in what is replayed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

__all__ = ["MASK", "redact", "redact_text", "redact_url", "redacted_repr"]

MASK: Final = "[redacted]"
_WORDS: Final = (
    r"pass(?:word|wd|phrase|code)?s?(?:$|[_-])|pwd|secret|token|api[-_]?key|authorization|"
    r"credential|cookie|private[-_]?key|passwords?(?:[_-]|$)|signature"
)
_SECRET_KEY: Final = re.compile(_WORDS, re.IGNORECASE)
# What a job's error says may be written to hurt: each expression takes time that grows with the
# text and no faster, so a run of characters is entered at its start alone and never given back.
_NAME: Final = (
    r"(?<![\w-])(?=[\w-]*?(?:passwords?|passwd|passphrase|pwd|secret|token|api[-_]?key))[\w-]++"
)
# A quote that a cut left open hides the rest of the line.
_QUOTED_PAIR: Final = re.compile(
    rf"(?i)((?P<open>[\"']?){_NAME}(?P=open)\s*+[=:]\s*+)"
    r"(?P<quote>[\"'])(?:[^\\\n\"']|\\.|(?!(?P=quote))[\"'])*+(?P=quote)?+"
)
_BARE_PAIR: Final = re.compile(rf"(?i)([\"']?{_NAME}[\"']?\s*+[=:]\s*+)(?![\"'])([^\s,;&}}]+)")
_NAMED: Final = (
    "password", "passwd", "passphrase", "pwd", "secret", "token", "apikey", "api_key", "api-key",
)  # fmt: skip
_AUTHORIZATION: Final = re.compile(
    r"(?i)(authorization[\"']?\s*+[=:]\s*+[\"']?(?:(?:basic|bearer|digest|token)\s++)?)([^\s\"',;]+)"
)
_BEARER: Final = re.compile(r"(?i)\b(bearer\s++)([\w.~+/=-]{8,})")
_WORD: Final = re.compile(r"[^\s\"']+")
_URL_USER: Final = re.compile(r"(?i)(?<![\w+.-])[\w+.-]++://[^/:@]*+:")
_DEEPEST: Final = 32


def _without_password(found: re.Match[str]) -> str:
    """A word with a URL: up to its last @, for a password may hold @, / and : unescaped."""
    head, at, tail = found[0].rpartition("@")
    user = _URL_USER.search(head) if at else None
    if user is None or user.end() == len(head):
        return found[0]
    return f"{head[: user.end()]}{MASK}{at}{tail}"


# Each expression, with the words without one of which it finds nothing: looking for a word costs a
# hundredth of the expression.
_RULES: Final[
    tuple[tuple[tuple[str, ...], re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]
] = (
    (("://",), _WORD, _without_password),
    (("authorization",), _AUTHORIZATION, rf"\1{MASK}"),
    (("bearer",), _BEARER, rf"\1{MASK}"),
    (_NAMED, _QUOTED_PAIR, rf"\1{MASK}"),
    (_NAMED, _BARE_PAIR, rf"\1{MASK}"),
)
# The same for a whole value: a secret in it has one of these in its key or beside it. The letter is
# a rare one of its words, looked for first.
_TRACES: Final = {
    "/": ("://",),
    "z": ("authorization",),
    "w": ("pwd",),
    "b": ("bearer",),
    "v": ("private",),
    "k": ("token", "cookie", "apikey", "api_key", "api-key"),
    "d": ("credential",),
    "s": ("secret", "signature", "pass"),
}


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
    folded = _folded(text)
    if "=" not in text and ":" not in text and "bearer" not in folded:
        return text
    for words, expression, shown in _RULES:
        if _any_in(words, folded):
            text = expression.sub(shown, text)
    return text


def redacted_repr(value: Any) -> str:
    """`repr(redact(value))`; where the plain repr has no trace of a secret, that is it."""
    shown = repr(value)
    deep = shown.count("[") + shown.count("{") > _DEEPEST
    # A bracket may be a tuple, which `redact` shows as a list, or a class of its own.
    if deep or "(" in shown or _has_trace(_folded(shown)):
        return repr(redact(value))
    return shown


def _has_trace(folded: str) -> bool:
    for letter, words in _TRACES.items():  # noqa: SIM110 - a generator costs more than the search
        if letter in folded and _any_in(words, folded):
            return True
    return False


def _any_in(words: tuple[str, ...], folded: str) -> bool:
    for word in words:  # noqa: SIM110 - a generator costs more than the search
        if word in folded:
            return True
    return False


def _folded(text: str) -> str:
    """`text` with every letter that an expression takes for a small one as that one."""
    folded = text.lower()
    if folded.isascii():
        return folded
    # Beyond `lower`, `re` takes three for an i or an s; a dotted I is lowered to two letters.
    return folded.replace("i\u0307", "i").replace("\u0131", "i").replace("\u017f", "s")


def redact_url(url: str) -> str:
    """A URL fit for logs: its password masked, in the authority and in the query."""
    return redact_text(url)
