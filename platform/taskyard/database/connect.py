"""The engine: how this system reaches Postgres, and what its failures are called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError

from taskyard.database.faults import first_line, is_absent, is_away, is_wrong_schema
from taskyard.errors import InvalidSettings, SchemaMismatch, ServerUnreachable, TaskyardError
from taskyard.wire import redact_url

__all__ = ["CONNECT_TIMEOUT_S", "engine", "opened"]

CONNECT_TIMEOUT_S: Final = 5
# A server that vanishes without a word is noticed within half a minute, not after TCP's two hours.
_KEEPALIVE: Final = {
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_DRIVER: Final = "postgresql+psycopg2"
# The credentials stand beside it, or redaction would mask them in the example.
_FORM: Final = "postgresql://host:5432/name, with user:password@ before the host where it has them"
_DIALECTS: Final = frozenset({"postgres", "postgresql", _DRIVER})


def engine(url: str, *, application_name: str = "taskyard") -> Engine:
    """An engine for `url`; nothing is connected before its first use.

    Whatever it runs raises `ServerUnreachable` where Postgres is away, and `SchemaMismatch` where
    a table or column is missing. Raises `InvalidSettings` if `url` names no Postgres.
    """
    made = create_engine(
        _parse(url),
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": application_name,
            "options": "-c timezone=UTC",
            **_KEEPALIVE,
        },
    )
    event.listen(made, "handle_error", _Namer(redact_url(url)))
    return made


@contextmanager
def opened(url: str, *, application_name: str = "taskyard") -> Iterator[Engine]:
    """An `engine` whose connections are let go at the end, also of what fails."""
    made = engine(url, application_name=application_name)
    try:
        yield made
    finally:
        made.dispose()


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        msg = f"TASKYARD_DATABASE_URL is no URL; expected {_FORM}"
        raise InvalidSettings(msg) from error
    if parsed.drivername not in _DIALECTS:
        msg = (
            f"TASKYARD_DATABASE_URL names {parsed.drivername!r}; expected a PostgreSQL URL such as "
            f"{_FORM}"
        )
        raise InvalidSettings(msg)
    return parsed.set(drivername=_DRIVER)


class _Namer:
    """Turns the driver's errors into the ones that an operator can act on."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __call__(self, context: ExceptionContext) -> None:
        # A failed pre-ping is the pool's own business: it connects anew.
        if context.is_pre_ping:
            return
        named = self._name(context)
        if named is not None:
            raise named from context.original_exception

    def _name(self, context: ExceptionContext) -> TaskyardError | None:
        error = context.original_exception
        if is_absent(error):
            msg = (
                f"Postgres at {self._url} answers, and {first_line(error)}. Create the database "
                "(createdb), or set TASKYARD_DATABASE_URL to another; then: taskyard migrate"
            )
            return SchemaMismatch(msg)
        if context.is_disconnect or is_away(error):
            remedy = (
                "Check that the server runs and that TASKYARD_DATABASE_URL is right; "
                "for servers on this machine: taskyard up"
            )
            return ServerUnreachable("Postgres", self._url, first_line(error), remedy)
        if is_wrong_schema(error):
            msg = f"{first_line(error)}: the schema is not this version's. Run: taskyard migrate"
            return SchemaMismatch(msg)
        return None
