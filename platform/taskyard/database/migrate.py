"""Migrate the schema between versions, and check whether it is the one this version needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text

from taskyard.database.connect import opened
from taskyard.errors import InvalidSettings, SchemaMismatch

__all__ = [
    "ENCODING",
    "MINIMUM_POSTGRES",
    "VERSION_TABLE",
    "SchemaStatus",
    "check",
    "encoding_fault",
    "migrate",
]

MINIMUM_POSTGRES: Final = 14
ENCODING: Final = "UTF8"
# A name of our own, so that an application's Alembic can use the same database.
VERSION_TABLE: Final = "taskyard_schema"
_FOLDER: Final = Path(__file__).parent / "migrations"
# The number of an advisory lock ("taskyard" in ASCII): one migration at a time in a database.
_LOCK: Final = 0x7461736B79617264


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """The version of the schema: `current` (None in an empty database) and `expected`."""

    current: str | None
    expected: str


def migrate(url: str, to: str = "head") -> SchemaStatus:
    """Migrate the schema to version `to`: `head`, `base` (drops every table) or a version's number.

    One transaction, one migrator at a time. Raises `InvalidSettings` for an unknown version,
    `SchemaMismatch` for a server that is too old or a database that is not in UTF-8,
    `ServerUnreachable`, `ServerRefused`.
    """
    with (
        opened(url, application_name="taskyard migrate") as database,
        database.begin() as connection,
    ):
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        _check_server(connection)
        _move(connection, to)
        return _status(connection)


def check(url: str) -> SchemaStatus:
    """Return the schema's status if it is the expected one.

    Raises `SchemaMismatch` if it is not.
    """
    with (
        opened(url, application_name="taskyard check") as database,
        database.connect() as connection,
    ):
        _check_server(connection)
        status = _status(connection)
    if status.current != status.expected:
        raise SchemaMismatch(_explain(status))
    return status


def _move(connection: Connection, to: str) -> None:
    config = _config()
    config.attributes["connection"] = connection
    try:
        if _is_down(connection, to):
            command.downgrade(config, to)
        else:
            _check_encoding(connection)
            command.upgrade(config, to)
    except CommandError as error:
        known = ", ".join(["base", *_versions(), "head"])
        raise InvalidSettings(f"there is no schema version {to!r}; known: {known}") from error


def _is_down(connection: Connection, to: str) -> bool:
    versions = _versions()
    current = _status(connection).current
    if to == "base" or current is None:
        return to == "base"
    return to in versions and current in versions and versions.index(to) < versions.index(current)


def _status(connection: Connection) -> SchemaStatus:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return SchemaStatus(current=context.get_current_revision(), expected=_versions()[-1])


def _versions() -> list[str]:
    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    return [script.revision for script in scripts][::-1]


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    return config


def encoding_fault(connection: Connection) -> str | None:
    """Return what a database loses because it is not in UTF-8, with the remedy.

    None for a database in UTF-8.
    """
    encoding, name = connection.execute(
        text("SELECT current_setting('server_encoding'), current_database()")
    ).one()
    if encoding == ENCODING:
        return None
    return (
        f"the database {name} has the encoding {encoding}, expected {ENCODING}: it cannot store "
        f"every character of jobs and errors, and keeps a text that it refuses only as bytes. "
        f"Create another (createdb --encoding {ENCODING} --template template0 NAME), move the "
        f"data (pg_dump, psql) and set TASKYARD_DATABASE_URL"
    )


def _check_encoding(connection: Connection) -> None:
    fault = encoding_fault(connection)
    if fault is not None:
        raise SchemaMismatch(fault)


def _check_server(connection: Connection) -> None:
    number = connection.scalar(text("SELECT current_setting('server_version_num')::int"))
    if number < MINIMUM_POSTGRES * 10_000:
        msg = (
            f"PostgreSQL {MINIMUM_POSTGRES} or newer is needed, got {number // 10_000}: upgrade it"
        )
        raise SchemaMismatch(msg)


def _explain(status: SchemaStatus) -> str:
    if status.current is None:
        return f"the database has no schema, expected {status.expected}. Run: taskyard migrate"
    if status.current not in _versions():
        return (
            f"the database has schema {status.current}, the newest that this version knows is "
            f"{status.expected}. Upgrade taskyard, or run with the newer one: "
            f"taskyard migrate --to {status.expected}"
        )
    return (
        f"the database has schema {status.current}, expected {status.expected}. "
        "Run: taskyard migrate"
    )
