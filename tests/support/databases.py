"""Databases of one test's own, and URLs that reach them in other ways."""

from __future__ import annotations

import sys
import uuid
from functools import cache

import psycopg2
import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from servers import Servers
from taskyard.database import migrate, opened, roles_sql
from taskyard.database.postgres_grants import RUNTIME_ROLE
from taskyard.ops.embedded.port_and_passwords import Address
from taskyard.ops.embedded.postgres import ADMINISTRATOR

__all__ = [
    "ROLE_PASSWORD",
    "administrator_url",
    "database_in",
    "migrate_as_before",
    "migrated_database",
    "new_database",
    "owner_url",
    "run_script",
    "runtime_database",
    "with_query",
]


ROLE_PASSWORD = "of-the-tests"  # noqa: S105 - a server of the tests alone


def new_database(servers: Servers, how: str = "") -> str:
    """The URL of an empty database; `how` is the end of its CREATE DATABASE."""
    name = f"t{uuid.uuid4().hex[:10]}"
    admin = create_engine(servers.database_url(), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} {how}"))
    return make_url(servers.database_url()).set(database=name).render_as_string(False)


def database_in(servers: Servers, encoding: str) -> str:
    """The URL of an empty database in another encoding."""
    with opened(servers.database_url()) as engine, engine.connect() as connection:
        number = connection.scalar(text("SELECT current_setting('server_version_num')::int"))
    # The builtin provider of the newer servers' own databases knows UTF-8 alone.
    provider = "LOCALE_PROVIDER libc" if number >= 150_000 else ""
    return new_database(servers, f"ENCODING '{encoding}' {provider} LOCALE 'C' TEMPLATE template0")


def migrated_database(servers: Servers) -> str:
    """The URL of a database with the schema: a copy of one that was migrated once a process."""
    template = make_url(_template(servers)).database
    return new_database(servers, f"TEMPLATE {template}")


@cache
def _template(servers: Servers) -> str:
    url = new_database(servers)
    migrate(url)
    return url


def migrate_as_before(url: str) -> None:
    """Give a database that is not in UTF-8 its schema, as it was before that was refused."""
    with pytest.MonkeyPatch.context() as patch:
        # By its module: the package's attribute of that name is the function.
        patch.setattr(sys.modules[migrate.__module__], "_check_encoding", lambda _: None)
        migrate(url)


def with_query(url: str, **query: str) -> str:
    """`url` with more in its query."""
    return make_url(url).update_query_dict(query).render_as_string(False)


def runtime_database(servers: Servers) -> str:
    """The URL of a migrated database by the role that mirror, relay and operators have.

    Its owner's is `owner_url`.
    """
    owner = migrated_database(servers)
    with opened(owner) as engine, engine.connect() as connection:
        made = roles_sql(connection)
    password = f"ALTER ROLE {RUNTIME_ROLE} PASSWORD '{ROLE_PASSWORD}';"
    run_script(administrator_url(servers, owner), f"{made}\n{password}")
    url = make_url(owner).set(username=RUNTIME_ROLE, password=ROLE_PASSWORD)
    return url.render_as_string(hide_password=False)


def owner_url(servers: Servers, url: str) -> str:
    """The same database as the role that owns its tables."""
    owner = make_url(servers.database_url())
    own = make_url(url).set(username=owner.username, password=owner.password)
    return own.render_as_string(hide_password=False)


def run_script(url: str, script: str) -> None:
    """Run statements as psql would, the whole text at once."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = psycopg2.connect(plain)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(script)
    finally:
        connection.close()


def administrator_url(servers: Servers, url: str) -> str:
    """The same database as the server's superuser."""
    servers.database_url()
    address = Address.load(servers.stack.postgres.address_file)
    assert address is not None
    admin = make_url(url).set(username=ADMINISTRATOR, password=address.admin_password)
    return admin.render_as_string(False)
