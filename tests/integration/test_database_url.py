"""The database's URL over real connections: nothing that it says is lost, and a pooler works."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from servers import Servers
from support.databases import new_database, with_query
from support.pooler import Pooler
from support.shell import Shell
from taskyard.database import check, create_partitions, engine, migrate, opened
from taskyard.errors import InvalidSettings, SchemaMismatch, ServerRefused, ServerUnreachable

PATH = "-c search_path=ops"


@pytest.fixture(scope="module")
def url(servers: Servers) -> str:
    """A database with an empty schema `ops`."""
    made = new_database(servers)
    run(made, "CREATE SCHEMA ops")
    return made


@pytest.fixture(scope="module")
def ops_url(url: str) -> str:
    """The same, migrated in that schema."""
    made = with_query(url, options=PATH)
    migrate(made)
    return made


@pytest.fixture
def pooler(url: str) -> Iterator[Pooler]:
    direct = make_url(url)
    with Pooler(str(direct.host), int(direct.port or 0)) as running:
        yield running


def through(pooler: Pooler, url: str) -> str:
    return make_url(url).set(port=pooler.port).render_as_string(hide_password=False)


def run(url: str, *statements: str) -> None:
    with create_engine(url, poolclass=NullPool).begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def shown(url: str, name: str) -> str:
    with opened(url) as made, made.connect() as connection:
        return str(connection.scalar(text(f"SHOW {name}")))


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [
        ({"options": PATH}, "search_path", "ops"),
        ({"options": "-c timezone=Asia/Tokyo"}, "timezone", "Asia/Tokyo"),
        ({"options": "-c lock_timeout=7s"}, "timezone", "UTC"),
        ({"options": "-c lock_timeout=7s"}, "lock_timeout", "7s"),
        ({"application_name": "mine"}, "application_name", "mine"),
        ({}, "application_name", "taskyard"),
        ({}, "timezone", "UTC"),
        ({"client_encoding": "latin1"}, "client_encoding", "UTF8"),
    ],
)
def test_the_session_is_as_the_url_says(
    url: str, query: dict[str, str], name: str, value: str
) -> None:
    assert shown(with_query(url, **query), name) == value


def test_our_own_time_zone_outlives_a_rollback_and_the_pool(url: str) -> None:
    with opened(url) as made:
        for _ in range(2):
            with made.connect() as connection:
                assert connection.scalar(text("SHOW timezone")) == "UTC"
                connection.rollback()
                assert connection.scalar(text("SHOW timezone")) == "UTC"


def test_libpqs_own_variables_are_heard(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGAPPNAME", "of the environment")
    monkeypatch.setenv("PGOPTIONS", PATH)
    assert shown(url, "application_name") == "of the environment"
    assert shown(url, "search_path") == "ops"
    assert shown(with_query(url, application_name="mine"), "application_name") == "mine"


def test_a_service_is_read_by_libpq_and_what_it_says_stands(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = make_url(url)
    file = tmp_path / "services"
    file.write_text(
        f"[ops]\nhost={parts.host}\nport={parts.port}\ndbname={parts.database}\n"
        f"user={parts.username}\npassword={parts.password}\n"
        f"application_name=of the service\noptions={PATH} -c timezone=Asia/Tokyo\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    service = "postgresql:///?service=ops"
    assert shown(service, "application_name") == "of the service"
    assert shown(service, "search_path") == "ops"
    assert shown(service, "timezone") == "Asia/Tokyo"
    with pytest.raises(InvalidSettings, match='definition of service "nope" not found'):
        shown("postgresql:///?service=nope", "timezone")


def test_of_several_hosts_the_first_that_serves_is_used(url: str) -> None:
    parts = make_url(url)
    user = f"{parts.username}:{parts.password}"
    several = f"postgresql://{user}@127.0.0.1:1,{parts.host}:{parts.port}/{parts.database}"
    assert shown(several, "application_name") == "taskyard"
    wanted = f"{several}?target_session_attrs=read-write"
    assert shown(wanted, "transaction_read_only") == "off"
    sqlalchemys = (
        f"postgresql+psycopg2://{user}@/{parts.database}"
        f"?host=127.0.0.1:1&host={parts.host}:{parts.port}"
    )
    assert shown(sqlalchemys, "application_name") == "taskyard"


def test_each_host_that_does_not_answer_is_named() -> None:
    with pytest.raises(ServerUnreachable) as caught:
        engine("postgresql://u:geheim@127.0.0.1:1,127.0.0.1:2/d").connect()
    message = str(caught.value)
    assert "port 1 failed: Connection refused; connection to server" in message
    assert "port 2 failed: Connection refused)" in message
    assert "geheim" not in message


def test_the_schema_is_made_and_found_where_the_search_path_says(url: str, ops_url: str) -> None:
    found = text("SELECT DISTINCT schemaname FROM pg_tables WHERE schemaname IN ('ops', 'public')")
    with opened(ops_url) as made, made.begin() as connection:
        assert connection.scalars(found).all() == ["ops"]
        assert create_partitions(connection, _now(connection))
        assert connection.scalars(found).all() == ["ops"]
    assert check(ops_url).current == check(ops_url).expected
    with pytest.raises(SchemaMismatch, match="has no schema"):
        check(url)
    assert migrate(ops_url, "base").current is None
    migrate(ops_url)


def _now(connection: object) -> object:
    return connection.scalar(text("SELECT now()"))  # type: ignore[attr-defined]


def test_a_search_path_without_a_schema_says_how_to_make_one(url: str) -> None:
    with pytest.raises(SchemaMismatch, match=r"names no schema that exists.*CREATE SCHEMA"):
        migrate(with_query(url, options="-c search_path=nowhere"))


def test_a_pooler_that_takes_no_options_works(url: str, pooler: Pooler) -> None:
    assert shown(through(pooler, url), "timezone") == "UTC"
    (start,) = pooler.started
    assert set(start) == {"user", "database", "client_encoding", "application_name"}


def test_a_refused_start_parameter_is_named_with_what_to_do(ops_url: str, pooler: Pooler) -> None:
    with pytest.raises(ServerRefused) as caught:
        shown(through(pooler, ops_url), "timezone")
    message = str(caught.value)
    assert "refused: " in message
    assert "unsupported startup parameter: options" in message
    assert "ALTER ROLE name SET search_path" in message
    assert "does not answer" not in message


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"options": "-c nonsense=1"}, "unrecognized configuration parameter"),
        ({"options": "-c lock_timeout=soon"}, "invalid value for parameter"),
        ({"options": "-c fsync=off"}, "cannot be changed"),
        ({"options": "-c deadlock_timeout=5s"}, "permission denied to set parameter"),
        ({"options": "--nonsense"}, "requires a value"),
    ],
)
def test_a_server_that_refuses_an_option_is_named_as_that(
    url: str, query: dict[str, str], said: str
) -> None:
    with pytest.raises(ServerRefused, match=said) as caught:
        shown(with_query(url, **query), "timezone")
    assert "TASKYARD_DATABASE_URL (`options`)" in str(caught.value)


def test_a_wrong_password_is_a_refusal_and_no_silence(url: str) -> None:
    wrong = make_url(url).set(password="geheim").render_as_string(hide_password=False)  # noqa: S106
    with pytest.raises(ServerRefused, match="password authentication failed") as caught:
        shown(wrong, "timezone")
    assert "check user, password and database" in str(caught.value)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("query", ["sslmode=foo", "connect_timeout=soon", "port=x"])
def test_an_option_that_the_driver_cannot_use_is_a_wrong_setting(url: str, query: str) -> None:
    with pytest.raises(InvalidSettings, match=r"TASKYARD_DATABASE_URL .* cannot be used: "):
        shown(f"{url}?{query}", "timezone")


# No random one: the processes of a test run must agree on the names of its tests.
NO_LETTER = "5" * 32
COMMANDS = (
    ("migrate", "--check"),
    ("check",),
    ("mirror",),
    ("relay",),
    ("reconcile",),
    ("dlq", "list"),
    ("dlq", "stats"),
    ("jobs", "list"),
    ("dlq", "show", NO_LETTER),
    ("dlq", "replay", NO_LETTER, "--reason", "the shop is repaired"),
)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_takes_the_urls_own_options_and_names_their_refusal(
    servers: Servers, ops_url: str, pooler: Pooler, tmp_path: Path, words: tuple[str, ...]
) -> None:
    redis = servers.valkey_url()
    shell = Shell(
        tmp_path,
        {
            "TASKYARD_DATABASE_URL": through(pooler, ops_url),
            "TASKYARD_REDIS_URL": redis,
            "TASKYARD_BROKER_URL": redis,
            "TASKYARD_NAMESPACE": f"t{uuid.uuid4().hex[:8]}",
            "TASKYARD_TRUST_LOCAL": "1",
        },
    )
    ran = shell.run(*words)
    assert "unsupported startup parameter: options" in ran.out + ran.err
    assert ran.code == 3
    if words[0] in {"mirror", "relay"}:
        return
    direct = shell.run(*words, TASKYARD_DATABASE_URL=ops_url)
    assert direct.code in {0, 4}, direct
    assert "schema" not in direct.err


def test_env_shows_the_url_as_it_was_written_without_its_password(
    ops_url: str, tmp_path: Path
) -> None:
    url = f"{ops_url}&application_name=my%20app&connect_timeout=42"
    ran = Shell(tmp_path, {"TASKYARD_DATABASE_URL": url}).run("env", "--json")
    value = ran.document["database_url"]["value"]
    assert value.endswith("&application_name=my%20app&connect_timeout=42")
    assert str(make_url(ops_url).password) not in value
    whole = Shell(tmp_path, {"TASKYARD_DATABASE_URL": url}).run("env", "--json", "--show-secrets")
    assert whole.document["database_url"]["value"] == url


def test_several_hosts_reach_every_command(url: str, ops_url: str, tmp_path: Path) -> None:
    parts = make_url(ops_url)
    several = (
        f"postgresql://{parts.username}:{parts.password}@127.0.0.1:1,{parts.host}:{parts.port}"
        f"/{parts.database}?options=-csearch_path%3Dops&target_session_attrs=any"
    )
    ran = Shell(tmp_path, {"TASKYARD_DATABASE_URL": several}).run("migrate", "--check")
    assert (ran.code, ran.err) == (0, "")


def test_reading_a_url_leaves_the_environment_alone(url: str) -> None:
    before = dict(os.environ)
    shown(url, "timezone")
    assert dict(os.environ) == before
