"""A database that is not in UTF-8: the mirror stores what it can and keeps the rest as bytes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, make_url, select, text

from servers import Servers
from support.databases import database_in, migrate_as_before
from support.dated import truncate
from support.entries import make_entry
from support.letters import DIED_US, make_delivery, make_letter, make_message
from support.mirrored import MirrorHarness
from support.shell import Shell
from support.waiting import eventually
from support.yard import fresh_settings
from taskyard.clock import from_us
from taskyard.control.replayed_message import captured
from taskyard.database import create_partitions, migrate, opened
from taskyard.database.tables import LETTERS
from taskyard.errors import SchemaMismatch
from taskyard.mirror import Delivery
from taskyard.mirror.store_letters import store_letters
from taskyard.mirror.store_lifecycle import store_events
from taskyard.wire import Letter

ENCODINGS = ("LATIN1", "SQL_ASCII")


def not_in_utf8(servers: Servers, encoding: str) -> str:
    """An empty database in another encoding."""
    return database_in(servers, encoding)


@pytest.fixture(scope="module", params=ENCODINGS)
def old_url(request: pytest.FixtureRequest, servers: Servers) -> str:
    """A database that got its schema before `migrate` refused its encoding."""
    url = not_in_utf8(servers, request.param)
    migrate_as_before(url)
    return url


@pytest.fixture(scope="module")
def old(old_url: str) -> Iterator[Engine]:
    with opened(old_url) as made:
        with made.begin() as connection:
            create_partitions(connection, from_us(DIED_US))
        yield made


@pytest.fixture(autouse=True)
def _empty(request: pytest.FixtureRequest) -> None:
    if "old" in request.fixturenames:
        truncate(request.getfixturevalue("old"))


def keep(database: Engine, *deliveries: Delivery) -> None:
    with database.begin() as connection:
        store_letters(connection, deliveries)


def rows(database: Engine) -> dict[uuid.UUID, dict[str, Any]]:
    with database.connect() as connection:
        found = connection.execute(select(LETTERS)).mappings()
        return {row["id"]: dict(row) for row in found}


FOREIGN: dict[str, dict[str, Any]] = {
    "error": {"error_message": "price: 5 \u20ac"},
    "argument": {"args": ["\u20ac \U0001f600"]},
    "name-of-an-argument": {"kwargs": {"\u20ac": 1}},
    "job-type": {"job_type": "\u65e5\u672c" * 200},
    "queue": {"queue": "\u65e5\u672c"},
    "job-id": {"job_id": "job-\u20ac"},
    "fingerprint": {"fingerprint": "\u20ac" * 5_000},
    "nul": {"traceback": "\u20ac\x00", "args": ["\x00"]},
    "header": {"message": make_message("h", headers={"id": "h", "k": "\u20ac"})},
    "content-type": {"message": make_message("c", content_type="text/\u20ac")},
    "worker": {"worker": "w@\u20ac", "reply_to": "\u20ac", "escalate_to": "\u20ac"},
    "evidence": {"evidence": {"\u20ac": ["\U0001f600"]}},
    "impossible-time": {"first_failure_us": 10**30, "error_class": "\u20ac"},
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_letter_that_the_encoding_cannot_hold_is_kept_and_the_others_are_whole(
    old: Engine, what: str
) -> None:
    job = str(FOREIGN[what].get("job_id", "foreign"))
    foreign = make_letter(job, **{k: v for k, v in FOREIGN[what].items() if k != "job_id"})
    sound = [make_letter() for _ in range(3)]
    batch = [make_delivery(letter) for letter in (*sound[:2], foreign, sound[2])]
    for _ in range(2):
        keep(old, *batch)
    stored = rows(old)
    row = stored.pop(uuid.UUID(foreign.letter_id))
    assert captured(row) == foreign.message
    assert {one["original_request_id"] for one in stored.values()} == {s.job_id for s in sound}
    assert [one["mirror_error"] for one in stored.values()] == [None] * 3
    if row["mirror_error"] is not None:
        assert Letter.parse(row["raw_envelope"]) == foreign


def test_what_the_encoding_does_hold_is_stored_whole(old: Engine) -> None:
    letter = make_letter(error_message="caf\xe9", worker="w@caf\xe9")
    keep(old, make_delivery(letter))
    (row,) = rows(old).values()
    assert (row["mirror_error"], row["failure_reason"]) == (None, "caf\xe9")


@pytest.mark.parametrize(
    "junk",
    [
        b"\xff\xfe\x00",
        "\u20ac".encode(),
        b'{"letter_id": "\\ud800"}',
        '{"category": "\u20ac"}'.encode(),
    ],
)
@pytest.mark.parametrize("kind", ["text/\u20ac", "\ud800", "a\x00b", 5, {"\u20ac": 1}])
def test_bytes_that_are_no_letter_are_stored_once(old: Engine, junk: bytes, kind: Any) -> None:
    delivery = make_delivery(junk, content_type=kind, content_encoding=kind)
    keep(old, make_delivery(make_letter()), delivery, delivery)
    keep(old, delivery)
    (raw,) = (row for row in rows(old).values() if row["raw_envelope"] is not None)
    assert len(rows(old)) == 2
    assert raw["raw_envelope"] == junk
    assert raw["mirror_error"].startswith("not a letter: ")


def test_a_message_that_the_broker_dropped_is_kept_with_its_headers(old: Engine) -> None:
    message = make_message("dropped")
    death = {"reason": "expired", "queue": "plan", "count": 1, "time": from_us(DIED_US)}
    headers = {**message.headers, "note": "\u20ac", "x-death": [death]}
    keep(old, Delivery(message.body, headers, message.properties, "application/json", "utf-8"))
    (row,) = rows(old).values()
    assert captured(row).body == message.body
    assert captured(row).headers["note"] == "\u20ac"


def count(database: Engine, table: str) -> int:
    with database.connect() as connection:
        return int(connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)  # noqa: S608


@pytest.mark.parametrize(
    "fields",
    [
        {"error": "price: 5 \u20ac"},
        {"job": "job-\u20ac"},
        {"job": "a\x00b"},
        {"worker": "\U0001f600"},
        {"error": "a\x00b\u20ac"},
        {"error": "\ud800"},
        {"event": "\u20ac"},
        {"epoch": "\u20ac"},
        {"token": 10**40, "code": "\u20ac"},
        {"letter": "\u20ac"},
    ],
    ids="-".join,
)
def test_an_event_that_the_encoding_cannot_hold_is_kept_and_the_others_are_stored(
    old: Engine, fields: dict[str, Any]
) -> None:
    batch = [make_entry("1"), make_entry(**{"job": "2", **fields}), make_entry("3")]
    for _ in range(2):
        with old.begin() as connection:
            store_events(connection, batch)
    assert count(old, "job_events") + count(old, "lifecycle_rejects") == 3
    assert count(old, "job_events") >= 2


def test_a_running_mirror_outlives_what_its_database_cannot_hold(
    servers: Servers, old: Engine
) -> None:
    harness = MirrorHarness(fresh_settings(servers.valkey_url()), old)
    try:
        with harness.running():
            letters = [
                make_letter(f"{what}-{number}", **{k: v for k, v in kept.items() if k != "job_id"})
                for number, (what, kept) in enumerate(FOREIGN.items())
            ]
            for letter in letters:
                harness.box.post(letter)
            harness.records.admit(
                "job-\u20ac", job_type="\u20ac", queue="plan", priority=3, unique_for_s=0
            )
            harness.admit("sound")
            last = harness.post()
            eventually(lambda: harness.has(last), "the letter behind them")
            eventually(lambda: harness.knows("sound"), "the event behind it")
        assert count(old, "dead_letter_queue") == len(letters) + 1
    finally:
        harness.close()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_migrate_refuses_an_encoding_that_loses_characters(servers: Servers, encoding: str) -> None:
    url = not_in_utf8(servers, encoding)
    said = rf"has the encoding {encoding}, expected UTF8.*createdb --encoding UTF8"
    with pytest.raises(SchemaMismatch, match=said):
        migrate(url)
    with opened(url) as engine, engine.connect() as connection:
        assert connection.scalar(text("SELECT to_regclass('dead_letter_queue')")) is None


def test_a_schema_in_another_encoding_can_still_be_removed(servers: Servers) -> None:
    url = not_in_utf8(servers, "LATIN1")
    migrate_as_before(url)
    assert migrate(url, "base").current is None


def test_check_names_the_encoding_and_what_to_do(old_url: str, tmp_path: Any) -> None:
    ran = Shell(tmp_path, {"TASKYARD_DATABASE_URL": old_url}).run("check", "--json")
    found = [
        finding
        for finding in ran.document["findings"]
        if finding["subject"] == "Postgres" and finding["level"] == "error"
    ]
    assert len(found) == 1
    name = make_url(old_url).database
    assert f"the database {name} has the encoding" in found[0]["detail"]
    assert "createdb --encoding UTF8" in found[0]["detail"]


def test_a_person_at_a_shell_is_told_by_migrate_in_one_line(
    servers: Servers, tmp_path: Any
) -> None:
    url = not_in_utf8(servers, "LATIN1")
    ran = Shell(tmp_path, {"TASKYARD_DATABASE_URL": url}).run("migrate")
    assert ran.code == 3
    assert ran.err.startswith("error: the database ")
    assert "has the encoding LATIN1, expected UTF8" in ran.err
