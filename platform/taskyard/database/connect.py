"""The SQLAlchemy engine for Postgres, and how its errors become Taskyard's errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import psycopg2
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext

from taskyard.database.conninfo import DRIVER, connection_parameters, names_timezone
from taskyard.database.postgres_errors import (
    Refusal,
    first_line,
    is_missing_database,
    is_moved_partition,
    is_out_of_time,
    is_refused_login,
    is_refused_parameter,
    is_refused_right,
    is_wrong_option,
    meaning,
    reasons,
)
from taskyard.errors import (
    InvalidSettings,
    SchemaMismatch,
    ServerRefused,
    ServerUnreachable,
    TaskyardError,
)
from taskyard.wire import redact_url

__all__ = ["engine", "opened"]

_NO_SCHEMA: Final = "3F000"


def engine(url: str, *, application_name: str = "taskyard") -> Engine:
    """Return an engine for `url`; it connects at its first use.

    Its statements raise `ServerUnreachable` if Postgres cannot be reached, `ServerRefused` if it
    answers with a refusal, `SchemaMismatch` if a table or column is missing, and `InvalidSettings`
    if the driver cannot use the URL. Raises `InvalidSettings` if `url` does not name a Postgres.
    """
    parameters = connection_parameters(url, application_name)
    made = create_engine(
        _display(parameters), creator=lambda: psycopg2.connect(**parameters), pool_pre_ping=True
    )
    if not names_timezone(parameters):
        event.listen(made, "connect", _set_timezone)
    event.listen(made, "handle_error", _Namer(redact_url(url)))
    return made


@contextmanager
def opened(url: str, *, application_name: str = "taskyard") -> Iterator[Engine]:
    """Yield an `engine` and close its connections at the end, also after an error."""
    made = engine(url, application_name=application_name)
    try:
        yield made
    finally:
        made.dispose()


def _display(parameters: Mapping[str, str]) -> URL:
    """Return the URL for SQLAlchemy to show; connections are made from `parameters`."""
    port = parameters.get("port", "")
    return URL.create(
        DRIVER,
        username=parameters.get("user"),
        password=parameters.get("password"),
        host=parameters.get("host"),
        port=int(port) if port.isdigit() else None,
        database=parameters.get("dbname"),
    )


def _set_timezone(connection: Any, _: object) -> None:
    """Set the session to UTC, where every year fits Python's dates.

    A pooler refuses a start option.
    """
    with connection.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'UTC'")
    connection.commit()


def _is_for_callers(error: BaseException) -> bool:
    """Return whether the caller of the statement handles this refusal itself."""
    return is_out_of_time(error) or is_refused_right(error) or is_moved_partition(error)


class _Namer:
    """Translates the driver's errors into errors that an operator can act on."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __call__(self, context: ExceptionContext) -> None:
        # A failed pre-ping is handled by the pool, which reconnects.
        if context.is_pre_ping:
            return
        error = context.original_exception
        named = self._of_login(error) if context.connection is None else None
        named = named or self._of_statement(error, disconnect=context.is_disconnect)
        if named is not None:
            raise named from error

    def _of_login(self, error: BaseException) -> TaskyardError | None:
        if is_missing_database(error):
            return SchemaMismatch(
                f"Postgres at {self._url} refuses the connection: {first_line(error)}. "
                "Create the database (createdb), or set TASKYARD_DATABASE_URL to another; then: "
                "taskyard migrate"
            )
        if is_wrong_option(error):
            return InvalidSettings(
                f"TASKYARD_DATABASE_URL ({self._url}) cannot be used: {reasons(error)}"
            )
        if is_refused_parameter(error):
            remedy = (
                "This is a start parameter of the connection: remove it from the query of "
                "TASKYARD_DATABASE_URL (`options`) and from PGOPTIONS. Behind PgBouncer set it at "
                "the server instead: ALTER ROLE name SET search_path = schema"
            )
            return ServerRefused("Postgres", self._url, reasons(error), remedy)
        if is_refused_login(error):
            remedy = (
                "The server answers: check user, password and database in TASKYARD_DATABASE_URL, "
                "and the server's log"
            )
            return ServerRefused("Postgres", self._url, reasons(error), remedy)
        return None

    def _of_statement(self, error: BaseException, *, disconnect: bool) -> TaskyardError | None:
        kind = Refusal.UNREACHABLE if disconnect else meaning(error)
        match kind:
            case Refusal.UNREACHABLE:
                remedy = (
                    "Check that the server runs and that TASKYARD_DATABASE_URL is right; "
                    "for servers on this machine: taskyard up"
                )
                return ServerUnreachable("Postgres", self._url, reasons(error), remedy)
            case Refusal.SCHEMA if getattr(error, "pgcode", None) == _NO_SCHEMA:
                return SchemaMismatch(
                    f"{first_line(error)}: the search_path names no schema that exists. Create it "
                    "(CREATE SCHEMA); then: taskyard migrate"
                )
            case Refusal.SCHEMA:
                return SchemaMismatch(
                    f"{first_line(error)}: the schema does not fit this version. Run: taskyard "
                    f"migrate"
                )
            case Refusal.PASSING if not _is_for_callers(error):
                remedy = "Nothing was done; try again, if it fails again, see the server's log"
                return ServerRefused("Postgres", self._url, first_line(error), remedy)
            case _:
                return None
