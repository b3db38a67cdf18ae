"""Where a Redis is: one server, or the primary that Sentinel names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from taskyard.errors import InvalidSettings

__all__ = ["SCHEMES", "SentinelAddress", "sentinel_address"]

SCHEMES: Final = ("redis", "rediss", "sentinel")
_SENTINEL_PORT: Final = 26379
# The credentials stand beside it, or redaction would mask them in the example.
_FORM: Final = (
    "sentinel://host:port,host:port/primary-name[/database], with user:password@ before the first "
    "host where the primary has them"
)


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """A primary by name; `username` and `password` are the primary's own."""

    hosts: tuple[tuple[str, int], ...]
    primary: str
    database: int
    username: str | None
    password: str | None


def sentinel_address(url: str) -> SentinelAddress | None:
    """The address in a `sentinel://` URL, None for any other; raises `InvalidSettings`."""
    parts = urlsplit(url)
    if parts.scheme != "sentinel":
        return None
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    primary, _, database = parts.path.strip("/").partition("/")
    if not hosts or not primary or not (database or "0").isdigit():
        raise InvalidSettings(f"a Sentinel URL has the form {_FORM}")
    return SentinelAddress(
        hosts=tuple(_host(host) for host in hosts.split(",")),
        primary=primary,
        database=int(database or 0),
        username=unquote(user) or None,
        password=unquote(password) or None,
    )


def _host(text: str) -> tuple[str, int]:
    name, _, port = text.rpartition(":") if ":" in text else (text, "", str(_SENTINEL_PORT))
    if not name or not port.isdigit():
        raise InvalidSettings(f"expected host:port in a Sentinel URL, got {text!r}; {_FORM}")
    return name, int(port)
