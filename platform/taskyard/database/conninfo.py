"""Parse the database's URL as libpq does, and add Taskyard's own connection parameters.

Values from the URL, its service or libpq's own variables are never overwritten. The one exception
is `client_encoding`: the data may hold any character.

See https://www.postgresql.org/docs/current/libpq-connect.html.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from configparser import Error as NotReadable
from configparser import RawConfigParser
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, unquote_plus

from psycopg2 import ProgrammingError
from psycopg2.extensions import parse_dsn

from taskyard.database.postgres_errors import first_line
from taskyard.errors import InvalidSettings
from taskyard.wire import redact_url

__all__ = ["CONNECT_TIMEOUT_S", "DRIVER", "FORM", "connection_parameters", "names_timezone"]

CONNECT_TIMEOUT_S: Final = 5
DRIVER: Final = "postgresql+psycopg2"
# The credentials are written after the example, or redaction would mask them in it.
FORM: Final = "postgresql://host:5432/name, with user:password@ before the host if it needs them"
_SCHEMES: Final = frozenset({"postgres", "postgresql", DRIVER})
# Notice a server that disappears without closing within half a minute, not after TCP's two hours.
# These are settings of the client only, so a pooler has nothing to refuse.
_DEFAULTS: Final = {
    "connect_timeout": str(CONNECT_TIMEOUT_S),
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
_VARIABLES: Final = {"connect_timeout": "PGCONNECT_TIMEOUT"}
_USER: Final = re.compile(r"(?P<user>[^:/@?]*)(?::(?P<password>[^@]*))?@")
_TIMEZONE: Final = re.compile(r"(?i)(?:-c\s*|--)timezone\s*=")
_FORM_ENCODED: Final = re.compile(r"-c\+|\+-")  # SQLAlchemy writes a space as a plus sign


def connection_parameters(url: str, application_name: str) -> dict[str, str]:
    """Return libpq's parameters for `url`; raises `InvalidSettings` if it names no Postgres."""
    given = _parse(url)
    known = {*given, *_of_service(given.get("service") or os.environ.get("PGSERVICE"))}
    known |= {name for name, variable in _VARIABLES.items() if variable in os.environ}
    added = {name: value for name, value in _DEFAULTS.items() if name not in known}
    # An application name from the URL, the service or PGAPPNAME takes precedence over this.
    added["fallback_application_name"] = application_name
    return {**added, **given, "client_encoding": "UTF8"}


def names_timezone(parameters: Mapping[str, str]) -> bool:
    """Return whether the user chose a time zone, in the URL, the service or libpq's variables."""
    service = _of_service(parameters.get("service") or os.environ.get("PGSERVICE"))
    options = parameters.get("options") or service.get("options") or os.environ.get("PGOPTIONS", "")
    return "PGTZ" in os.environ or _TIMEZONE.search(options) is not None


def _parse(url: str) -> dict[str, str]:
    scheme, colon, rest = url.partition("://")
    if not colon:
        raise InvalidSettings(f"TASKYARD_DATABASE_URL is not a URL; expected {FORM}")
    if scheme.lower() not in _SCHEMES:
        raise InvalidSettings(
            f"TASKYARD_DATABASE_URL names {scheme!r}; expected a PostgreSQL URL such as {FORM}"
        )
    strict = _strict(rest, form=scheme.lower() == DRIVER)
    try:
        found: dict[str, str] = parse_dsn(f"postgresql://{strict}")
    except ProgrammingError as error:
        cause = redact_url(first_line(error)).removeprefix("invalid dsn: ")
        raise InvalidSettings(
            f"TASKYARD_DATABASE_URL cannot be read: {cause}. Expected {FORM}"
        ) from None
    return found


def _strict(rest: str, *, form: bool) -> str:
    """Return the part after `://`, with everything percent-encoded that libpq requires.

    SQLAlchemy accepts more than libpq: a password with `/` or `%`, an unencoded `=` in the query.
    With `form`, a plus sign in the query is a space (form encoding).
    """
    place, mark, query = rest.partition("?")
    user = _USER.match(place)
    if user is not None:
        name, password = (quote(unquote(part or ""), safe="") for part in user.groups())
        known = name if user["password"] is None else f"{name}:{password}"
        place = f"{known}@{place[user.end() :]}"
    return place + mark + "&".join(_query(query.replace("+", "%20") if form else query))


def _query(query: str) -> Iterator[str]:
    """Parse the query; SQLAlchemy gives each host, with its port, a parameter of its own."""
    pairs = [part.partition("=") for part in query.split("&") if part]
    hosts = [unquote(value) for name, _, value in pairs if name == "host"]
    several = len(hosts) > 1 or any(":" in host and not host.startswith("/") for host in hosts)
    for name, sign, value in pairs:
        if name == "options" and _FORM_ENCODED.search(value):
            yield f"{name}{sign}{quote(unquote_plus(value), safe='')}"
        elif name != "host" or not several:
            yield f"{name}{sign}{quote(unquote(value), safe='')}"
    if several:
        split = [_host_and_port(host) for host in hosts]
        yield f"host={quote(','.join(host for host, _ in split), safe='')}"
        yield f"port={quote(','.join(port for _, port in split), safe='')}"


def _host_and_port(host: str) -> tuple[str, str]:
    """Split `name:port`, `[address]:port` or only a name.

    An IPv6 address itself contains colons.
    """
    name, _, port = host.rpartition(":")
    if name and (port.isdigit() or not port) and (":" not in name or name.endswith("]")):
        return name.strip("[]"), port
    return host.strip("[]"), ""


def _of_service(name: str | None) -> Mapping[str, str]:
    """Return the parameters of the connection service `name`.

    Libpq reports a missing service itself.
    """
    if name is None:
        return {}
    folder = os.environ.get("PGSYSCONFDIR")
    own = os.environ.get("PGSERVICEFILE") or Path.home() / ".pg_service.conf"
    for file in [Path(own), *([Path(folder) / "pg_service.conf"] if folder else [])]:
        parser = RawConfigParser(
            strict=False,
            delimiters=("=",),
            comment_prefixes=("#",),
            allow_no_value=True,
            default_section="",
        )
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            parser.read_string("\n".join(line.strip() for line in lines))
        except (OSError, NotReadable):
            continue
        if parser.has_section(name):
            return {key: value or "" for key, value in parser.items(name)}
    return {}
