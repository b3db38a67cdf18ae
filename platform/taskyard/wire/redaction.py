"""Redaction: secrets are masked in what is shown and logged, never in what is replayed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

__all__ = [
    "CREDENTIAL_TEXT",
    "MASK",
    "mask_tokens",
    "redact",
    "redact_text",
    "redact_url",
    "redacted_repr",
]

MASK: Final = "[redacted]"
# The one table of words that name a secret, both in keys and in free text. The expressions, and the
# words that are searched before them, are built from it. An underscore may be a dash or nothing.
_WORDS: Final = (
    "pass", "password", "passwd", "passphrase", "passcode", "pwd", "secret", "token", "api_key",
    "authorization", "credential", "cookie", "private_key", "signature",
)  # fmt: skip
# Only as a whole word: not in bypass, compass, passenger or passed.
_ALONE: Final = {"pass": "(?<!by)(?<!com)pass(?![a-z0-9])"}
# A name of several words has an expression of its own.
_LONG: Final = ("authorization", "cookie")


def _any_of(words: Iterable[str]) -> str:
    return "|".join(_ALONE.get(word, word.replace("_", "[-_]?")) for word in words)


def _name(words: Iterable[str]) -> str:
    """Return an expression for a name in free text that contains one of `words`.

    A job's error text may be written to attack: each expression must take time that grows no faster
    than the text, so it enters a run of characters only at its start and never backtracks.
    """
    return rf"(?<![\w-])(?=[\w-]*?(?:{_any_of(words)}))[\w-]++"


def _spellings(words: Iterable[str]) -> tuple[str, ...]:
    """Return each spelling in small letters, without spellings that contain another spelling."""
    every = {word.replace("_", sign) for word in words for sign in ("_", "-", "")}
    return tuple(sorted(one for one in every if not any(x in one for x in every - {one})))


_NAMED: Final = _spellings(_WORDS)
_SECRET_KEY: Final = re.compile(_any_of(_WORDS), re.IGNORECASE)
_CREDENTIAL_START: Final = "v1."
# A signed credential (taskyard.access.credential), whole or cut off.
CREDENTIAL_TEXT: Final = r"v1\.[0-9a-f]{16}\.[A-Za-z0-9_-]{100,}+(?:\.[A-Za-z0-9_-]++)?+"
_CREDENTIAL: Final = re.compile(CREDENTIAL_TEXT)
# What stands between a name and its value.
_SIGN: Final = r"\s*+(?:=>|:=|[=:])\s*+"
# A quote without an end (a cut text) hides the rest of the line. Text inside of text has its quotes
# escaped; one more backslash before such a quote belongs to the value.
_QUOTED_PAIR: Final = re.compile(
    rf"(?i)((?P<open>(?<!\\)\\*+[\"']|){_name(_WORDS)}(?P=open){_SIGN})"
    r"(?P<quote>\\*+[\"'])(?:(?!(?<!\\)(?P=quote))(?:[^\\\n]|\\.))*+(?P=quote)?+"
)
_BARE_PAIR: Final = re.compile(
    rf"(?i)([\"']?{_name(word for word in _WORDS if word not in _LONG)}[\"']?{_SIGN})"
    r"(?!\\*+[\"'])([^\s,;&}]+)"
)
# A header's cookies are pairs with names of their own, up to the end of the line.
_COOKIES: Final = re.compile(rf"(?i)([\"']?{_name(['cookie'])}[\"']?{_SIGN})(?![\"'])([^\r\n\"']+)")
# A scheme and its credentials, up to the end of the line; or one word.
_AUTHORIZATION: Final = re.compile(
    rf"(?i)(authorization[\"']?{_SIGN}[\"']?(?:(?:basic|bearer|digest|token)\s++)?)"
    r"([^\s\"',;]++(?:[ \t]++[^\r\n\"']++)?)"
)
_BEARER: Final = re.compile(r"(?i)\b(bearer\s++)([\w.~+/=-]{8,})")
_WORD: Final = re.compile(r"[^\s\"']+")
_URL_USER: Final = re.compile(r"(?i)(?<![\w+.-])[\w+.-]++://[^/:@]*+:")
# A token of ours is known by its form, under whatever name it stands, also where it was cut.
_TOKEN_START: Final = "ty_"  # noqa: S105 - what every token begins with
_TOKEN: Final = re.compile(r"(ty_[0-9a-f]{12}_)[A-Za-z0-9_-]{8,}+")
_DEEPEST: Final = 32


def _without_password(found: re.Match[str]) -> str:
    """Mask a URL's password up to the last @: a password may contain unescaped @, / and :."""
    head, at, tail = found[0].rpartition("@")
    user = _URL_USER.search(head) if at else None
    if user is None or user.end() == len(head):
        return found[0]
    return f"{head[: user.end()]}{MASK}{at}{tail}"


# Each expression, with the words of which it needs one: searching a word costs a hundredth of the
# expression.
_RULES: Final[
    tuple[tuple[tuple[str, ...], re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]
] = (
    (("://",), _WORD, _without_password),
    (("authorization",), _AUTHORIZATION, rf"\1{MASK}"),
    (("bearer",), _BEARER, rf"\1{MASK}"),
    (_NAMED, _QUOTED_PAIR, rf"\1{MASK}"),
    (("cookie",), _COOKIES, rf"\1{MASK}"),
    (_NAMED, _BARE_PAIR, rf"\1{MASK}"),
)
# The same for a whole value: a secret has one of these words in its key or beside it. Each is
# listed under a rare letter of its own, which is searched first.
_RARE: Final = "/zwbvkds"


def _by_letter(words: Iterable[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = dict.fromkeys(_RARE, ())
    for word in words:
        found[next(letter for letter in _RARE if letter in word)] += (word,)
    return found


_TRACES: Final = _by_letter(("://", "bearer", *_NAMED))


def redact(value: Any, depth: int = 0) -> Any:
    """Return a copy of JSON-like `value` with the values of secret-looking keys masked."""
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
    """Return free text (messages, tracebacks) with secrets, tokens and passwords masked."""
    text = mask_tokens(text)
    folded = _folded(text)
    if "=" not in text and ":" not in text and "bearer" not in folded:
        return text
    for words, expression, shown in _RULES:
        if _any_in(words, folded):
            text = expression.sub(shown, text)
    return text


def mask_tokens(text: str) -> str:
    """Return `text` with operators' tokens and credentials masked, and nothing else changed."""
    if _CREDENTIAL_START in text:
        text = _CREDENTIAL.sub(MASK, text)
    return _TOKEN.sub(rf"\1{MASK}", text) if _TOKEN_START in text else text


def redacted_repr(value: Any) -> str:
    """Return `repr(redact(value))`; for a value without secrets this is the plain repr."""
    shown = repr(value)
    deep = shown.count("[") + shown.count("{") > _DEEPEST
    # A bracket may be a tuple, which `redact` shows as a list, or an unknown class.
    if deep or "(" in shown or _has_trace(_folded(shown)):
        return repr(redact(value))
    return mask_tokens(shown) if _TOKEN_START in shown or _CREDENTIAL_START in shown else shown


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
    """Return `text` in small letters, as the regular expressions compare letters."""
    folded = text.lower()
    if folded.isascii():
        return folded
    # Beyond `lower`, `re` treats three characters as an i or an s; a dotted I lowers to two
    # letters.
    return folded.replace("i\u0307", "i").replace("\u0131", "i").replace("\u017f", "s")


def redact_url(url: str) -> str:
    """Return a URL for logs: its password masked, in the authority and in the query."""
    return redact_text(url)
