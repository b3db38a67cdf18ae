"""The parts of a URL, decoded; several hosts may stand between its credentials and its path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from taskyard.errors import InvalidSettings
from taskyard.wire.redaction import redact_url

__all__ = ["Url", "flag", "read_url"]


@dataclass(frozen=True, slots=True)
class Url:
    """`path` has lost its first slash; `options` is the query, the last of equal names counts."""

    scheme: str
    username: str | None
    password: str | None
    hosts: tuple[tuple[str, int | None], ...]
    path: str
    options: Mapping[str, str]


def read_url(url: str, form: str) -> Url:
    """Read `url`; raises `InvalidSettings`, which shows the `form` it should have.

    No part of the password is quoted: the libraries' own errors would.
    """
    try:
        parts = _split(url)
        hosts = tuple(_host(text) for text in parts.netloc.rpartition("@")[2].split(","))
    except ValueError:
        raise InvalidSettings(
            f"expected {form}, with user:password@ before the host where it has them and special "
            f"characters of the password percent-encoded, got {redact_url(url)}"
        ) from None
    credentials = parts.netloc.rpartition("@")[0]
    user, _, password = credentials.partition(":")
    return Url(
        scheme=parts.scheme,
        username=unquote(user) or None,
        password=unquote(password) or None,
        hosts=hosts,
        path=unquote(parts.path.removeprefix("/")),
        options=dict(parse_qsl(parts.query, keep_blank_values=True)),
    )


def _split(url: str) -> SplitResult:
    parts = urlsplit(url)
    parts.netloc.encode("utf-8")
    # A raw # in a password would end the URL there, and its first part pass for host and port.
    if parts.fragment or not parts.netloc.isprintable():
        raise ValueError("a fragment")
    return parts


def _host(text: str) -> tuple[str, int | None]:
    """Host and port; raises ValueError for a port that is no number from 1 to 65535."""
    if text.startswith("["):
        name, _, rest = text[1:].partition("]")
        if rest and not rest.startswith(":"):
            raise ValueError("behind an address in brackets stands :port")
        port = rest.removeprefix(":")
    else:
        name, _, port = text.partition(":")
    if not port:
        return unquote(name), None
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise ValueError("no port")
    return unquote(name), int(port)


def flag(text: str) -> bool:
    """Whether an option is switched on; raises ValueError for another word than yes or no."""
    word = text.lower()
    if word in ("1", "true", "yes", "y", "on"):
        return True
    if word in ("0", "false", "no", "n", "off"):
        return False
    raise ValueError("expected true or false")
