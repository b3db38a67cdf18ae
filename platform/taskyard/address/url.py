"""The decoded parts of a URL; several hosts may be between its credentials and its path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from taskyard.errors import InvalidSettings
from taskyard.wire.redaction import redact_url

__all__ = ["Url", "flag", "read_url"]


@dataclass(frozen=True, slots=True)
class Url:
    """A parsed URL.

    `path` is without its first slash. `options` is the query; if a name occurs twice in the query,
    the last value counts.
    """

    scheme: str
    username: str | None
    password: str | None
    hosts: tuple[tuple[str, int | None], ...]
    path: str
    options: Mapping[str, str]


def read_url(url: str, form: str) -> Url:
    """Parse `url`; raises `InvalidSettings`, which shows the expected `form`.

    No part of the password is quoted: the libraries' own errors would quote it.
    """
    try:
        parts = _split(url)
        hosts = tuple(_host(text) for text in parts.netloc.rpartition("@")[2].split(","))
    except ValueError:
        raise InvalidSettings(
            f"expected {form}, with user:password@ before the host if it needs them, and special "
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
    # An unescaped # in a password would end the URL there, and its first part would look like host
    # and port.
    if parts.fragment or not parts.netloc.isprintable():
        raise ValueError("a fragment")
    return parts


def _host(text: str) -> tuple[str, int | None]:
    """Return host and port; raises ValueError for a port that is not a number from 1 to 65535."""
    if text.startswith("["):
        name, _, rest = text[1:].partition("]")
        if rest and not rest.startswith(":"):
            raise ValueError("expected :port after an address in brackets")
        port = rest.removeprefix(":")
    else:
        name, _, port = text.partition(":")
    if not port:
        return unquote(name), None
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise ValueError("no port")
    return unquote(name), int(port)


def flag(text: str) -> bool:
    """Return whether an option is switched on.

    Raises ValueError if the option's value means neither yes nor no.
    """
    word = text.lower()
    if word in ("1", "true", "yes", "y", "on"):
        return True
    if word in ("0", "false", "no", "n", "off"):
        return False
    raise ValueError("expected true or false")
