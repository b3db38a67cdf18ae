"""The database's URL: what it says is what is connected to, with ours added where it is silent."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import URL

from taskyard.database.conninfo import connection_parameters, names_timezone
from taskyard.errors import InvalidSettings

VARIABLES = ("PGSERVICE", "PGSERVICEFILE", "PGCONNECT_TIMEOUT", "PGOPTIONS", "PGTZ", "PGSYSCONFDIR")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def read(url: str) -> dict[str, str]:
    return connection_parameters(url, "taskyard test")


def test_a_url_that_says_little_gets_our_timeouts_and_our_name() -> None:
    assert read("postgresql://host/name") == {
        "host": "host",
        "dbname": "name",
        "connect_timeout": "5",
        "keepalives_idle": "15",
        "keepalives_interval": "5",
        "keepalives_count": "3",
        "tcp_user_timeout": "30000",
        "fallback_application_name": "taskyard test",
        "client_encoding": "UTF8",
    }


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2", "PostgreSQL"])
@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("h/d?options=-csearch_path%3Dops", {"options": "-csearch_path=ops"}),
        ("h/d?options=-c%20search_path%3Dops", {"options": "-c search_path=ops"}),
        ("h/d?options=-csearch_path=ops", {"options": "-csearch_path=ops"}),
        ("h/d?options=-c+search_path%3Dops", {"options": "-c search_path=ops"}),
        ("h/d?options=-c%20a%3D1+-c+b%3D2", {"options": "-c a=1 -c b=2"}),
        ("h/d?connect_timeout=42", {"connect_timeout": "42"}),
        ("h/d?connect_timeout=0", {"connect_timeout": "0"}),
        ("h/d?application_name=my%20app", {"application_name": "my app"}),
        ("h/d?sslmode=verify-full&sslrootcert=/a/b.pem", {"sslrootcert": "/a/b.pem"}),
        ("h/d?ssl=true", {"sslmode": "require"}),
        ("h/d?keepalives_idle=99&tcp_user_timeout=1", {"keepalives_idle": "99"}),
        ("h/d?target_session_attrs=read-write", {"target_session_attrs": "read-write"}),
        ("h1:1,h2:2/d", {"host": "h1,h2", "port": "1,2"}),
        ("u:p@h1,h2:2/d", {"host": "h1,h2", "port": ",2", "user": "u", "password": "p"}),
        ("/d?host=h1:1&host=h2:2", {"host": "h1,h2", "port": "1,2", "dbname": "d"}),
        ("/d?host=h1:1&host=h2", {"host": "h1,h2", "port": "1,"}),
        ("/d?host=%5B::1%5D:5&host=h", {"host": "::1,h", "port": "5,"}),
        ("/d?host=h&port=5", {"host": "h", "port": "5"}),
        ("/d?host=/var/run:1", {"host": "/var/run:1"}),
        ("%2Fvar%2Frun%2Fpg/d", {"host": "/var/run/pg"}),
        ("[::1]:5/d", {"host": "::1", "port": "5"}),
        ("us%40er:p%40ss%2F%3A%25@h/my%20db", {"user": "us@er", "password": "p@ss/:%"}),
        ("u:p/w%@h/my%20db", {"password": "p/w%", "dbname": "my db", "host": "h"}),
        ("u:%zz@h/d", {"password": "%zz"}),
        ("u@h/d", {"user": "u"}),
        ("/?service=none", {"service": "none"}),
    ],
)
def test_what_a_url_says_is_taken_as_it_is_written(
    scheme: str, rest: str, said: dict[str, str]
) -> None:
    found = read(f"{scheme}://{rest}")
    assert {name: found[name] for name in said} == said


@pytest.mark.parametrize(
    "query",
    [
        {"options": "-c search_path=ops -c work_mem=8MB"},
        {"application_name": "a + b & c"},
        {"host": ("h1:1", "h2:2"), "target_session_attrs": "read-write"},
    ],
)
def test_a_url_that_sqlalchemy_wrote_means_the_same(query: dict[str, str]) -> None:
    written = URL.create("postgresql+psycopg2", "u", "p @:/%+&=?", "h", 5, "d", query)
    found = read(written.render_as_string(hide_password=False))
    assert (found["user"], found["password"], found["dbname"]) == ("u", "p @:/%+&=?", "d")
    if "host" in query:
        query = {"host": "h1,h2", "port": "1,2"}
    assert {name: found[name] for name in query} == query


def test_a_plus_is_a_plus_where_libpq_reads_it_so() -> None:
    assert read("postgresql://h/d?application_name=a+b")["application_name"] == "a+b"
    zone = "-c timezone=Etc/GMT+1"
    assert read("postgresql://h/d?options=-c%20timezone%3DEtc/GMT+1")["options"] == zone


def test_only_the_encoding_is_never_the_urls() -> None:
    assert read("postgresql://h/d?client_encoding=latin1")["client_encoding"] == "UTF8"


def test_what_the_environment_says_to_libpq_is_not_overwritten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "42")
    assert "connect_timeout" not in read("postgresql://h/d")
    assert read("postgresql://h/d?connect_timeout=3")["connect_timeout"] == "3"
    assert "application_name" not in read("postgresql://h/d")


@pytest.mark.parametrize("named", ["url", "variable"])
@pytest.mark.parametrize("place", ["home", "PGSERVICEFILE", "PGSYSCONFDIR"])
def test_what_a_service_says_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, place: str
) -> None:
    file = tmp_path / (".pg_service.conf" if place == "home" else "pg_service.conf")
    file.write_text(
        "# ours\n[other]\nconnect_timeout=1\n\n[ops]\nhost=h\n  connect_timeout=42\n"
        "options=-c search_path=ops -c timezone=Asia/Tokyo\n"
    )
    if place != "home":
        monkeypatch.setenv(place, str(file if place == "PGSERVICEFILE" else tmp_path))
    if named == "variable":
        monkeypatch.setenv("PGSERVICE", "ops")
    found = read("postgresql:///?service=ops" if named == "url" else "postgresql:///")
    assert not {"connect_timeout", "options", "host"} & set(found)
    assert found["keepalives_idle"] == "15"
    assert names_timezone(found)


@pytest.mark.parametrize(
    ("url", "chosen"),
    [
        ("postgresql://h/d", False),
        ("postgresql://h/d?options=-csearch_path%3Dtimezone", False),
        ("postgresql://h/d?options=-cTimeZone%3DAsia/Tokyo", True),
        ("postgresql://h/d?options=--timezone%3DAsia/Tokyo", True),
    ],
)
def test_a_time_zone_is_the_users_where_one_is_named(url: str, chosen: bool) -> None:
    assert names_timezone(read(url)) is chosen


@pytest.mark.parametrize("variable", ["PGTZ", "PGOPTIONS"])
def test_a_time_zone_of_the_environment_is_the_users(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "-c timezone=Asia/Tokyo")
    assert names_timezone(read("postgresql://h/d"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("host=h dbname=d", "TASKYARD_DATABASE_URL is not a URL; expected postgresql://host:5432"),
        ("mysql://h/d", "TASKYARD_DATABASE_URL names 'mysql'; expected a PostgreSQL URL"),
        ("postgresql+asyncpg://h/d", "names 'postgresql\\+asyncpg'; expected a PostgreSQL URL"),
        ("postgresql://h/d?foo=1", 'cannot be read: invalid URI query parameter: "foo"'),
        ("postgresql://h/d?options", "cannot be read: missing key/value separator"),
        ("postgresql://u:geheim@[::1/d", "cannot be read: .* matching"),
    ],
)
def test_a_url_that_cannot_be_read_is_named_without_its_password(url: str, said: str) -> None:
    with pytest.raises(InvalidSettings, match=said) as caught:
        read(url)
    assert "geheim" not in str(caught.value)
