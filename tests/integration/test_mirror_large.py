"""Letters and events that are larger than what one statement carries well."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, text

from servers import Servers
from support.databases import database_in, migrate_as_before
from support.dated import dated
from support.entries import make_entry
from support.letters import make_delivery, make_letter, make_message
from taskyard.control.replayed_message import captured
from taskyard.database.tables import LETTERS, REJECTS
from taskyard.mirror import Delivery
from taskyard.mirror.store_letters import store_letters
from taskyard.mirror.store_lifecycle import store_events
from taskyard.wire import Letter

pytestmark = pytest.mark.usefixtures("empty_database")

PIECE = 4_000


@pytest.fixture
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits at a few kilobytes: the way is the same, and quick."""
    for place in (
        "database.bulk_write",
        "mirror.store_letters",
        "mirror.letter_rows",
        "mirror.store_lifecycle",
    ):
        monkeypatch.setattr(f"taskyard.{place}.PIECE_BYTES", PIECE)
    monkeypatch.setattr("taskyard.mirror.bisect_batch.BATCH_BYTES", 10 * PIECE)
    monkeypatch.setattr("taskyard.mirror.bisect_batch.WHOLE_BYTES", 50 * PIECE)


def keep(database: Engine, *deliveries: Delivery) -> None:
    with database.begin() as connection:
        store_letters(connection, deliveries)


def rows(database: Engine) -> dict[uuid.UUID, dict[str, Any]]:
    with database.connect() as connection:
        found = connection.execute(select(LETTERS)).mappings()
        return {row["id"]: dict(row) for row in found}


def row(database: Engine) -> dict[str, Any]:
    (only,) = rows(database).values()
    return only


def large(size: int, **changes: Any) -> Letter:
    body = bytes(n % 251 for n in range(size))
    return make_letter("large", message=make_message("large", body=body), **changes)


@pytest.mark.usefixtures("_small_limits")
@pytest.mark.parametrize("size", [PIECE, PIECE + 1, 2 * PIECE, 5 * PIECE + 7])
def test_a_body_in_pieces_is_whole_and_byte_exact(database: Engine, size: int) -> None:
    letter = large(size)
    for _ in range(2):
        keep(database, make_delivery(letter))
    assert row(database)["mirror_error"] is None
    assert captured(row(database)) == letter.message


@pytest.mark.usefixtures("_small_limits")
@pytest.mark.parametrize(
    "fault", [{"args": ["\x00"]}, {"kwargs": {"n": ["\x00" * 9]}, "error_message": "\x00"}]
)
def test_a_refused_letter_in_pieces_keeps_its_whole_envelope(
    database: Engine, fault: dict[str, Any]
) -> None:
    letter = large(20 * PIECE, **fault)
    for _ in range(2):
        keep(database, make_delivery(letter))
    assert row(database)["raw_envelope"] == letter.encode()
    assert captured(row(database)) == letter.message


@pytest.mark.usefixtures("_small_limits")
def test_a_letter_that_no_statement_carries_is_kept_as_its_bytes(database: Engine) -> None:
    letter = large(45 * PIECE)
    keep(database, *(make_delivery(make_letter()) for _ in range(3)), make_delivery(letter))
    kept = rows(database).pop(uuid.UUID(letter.letter_id))
    assert "more than fit into one statement" in kept["mirror_error"]
    assert kept["original_request_id"] == "large"
    assert kept["replay_eligible"]
    assert captured(kept) == letter.message
    assert len(rows(database)) == 4


@pytest.mark.usefixtures("_small_limits")
def test_a_newer_version_replaces_all_pieces_and_an_older_one_none(database: Engine) -> None:
    keep(database, make_delivery(large(9 * PIECE, version=5)))
    keep(database, make_delivery(large(3 * PIECE, version=4)))
    assert captured(row(database)) == large(9 * PIECE).message
    keep(database, make_delivery(large(2 * PIECE + 1, version=6)))
    assert captured(row(database)) == large(2 * PIECE + 1).message


@pytest.mark.usefixtures("_small_limits")
def test_junk_in_pieces_is_stored_once(database: Engine) -> None:
    junk = bytes(n % 251 for n in range(70 * PIECE + 3))
    delivery = make_delivery(junk)
    for _ in range(2):
        keep(database, delivery, delivery)
    assert row(database)["raw_envelope"] == junk


@pytest.mark.usefixtures("_small_limits")
def test_a_rejected_event_in_pieces_is_kept_once(database: Engine) -> None:
    entry = make_entry("a\x00b", error="x" * (60 * PIECE))
    for _ in range(2):
        with database.begin() as connection:
            store_events(connection, [make_entry("sound"), entry])
    with database.connect() as connection:
        kept = connection.scalars(select(REJECTS.c.entry)).all()
    assert kept == [b"\n".join(name + b"=" + value for name, value in entry.fields.items())]


@pytest.mark.usefixtures("_small_limits")
def test_a_batch_is_sent_in_statements_of_a_bounded_size(database: Engine) -> None:
    """500 letters of 3 MB in one statement would be more than the protocol carries."""
    sizes: list[int] = []
    batch = [make_delivery(make_letter(args=["x" * PIECE])) for _ in range(40)]

    def measure(*arguments: Any) -> None:
        sizes.append(len(str(arguments[3])))

    event.listen(database, "before_cursor_execute", measure)
    try:
        keep(database, *batch)
    finally:
        event.remove(database, "before_cursor_execute", measure)
    assert len(rows(database)) == 40
    assert max(sizes) < 20 * PIECE


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1", "SQL_ASCII"])
def test_a_letter_and_an_event_of_100_megabytes_do_not_stop_the_mirror(
    servers: Servers, encoding: str
) -> None:
    url = database_in(servers, encoding)
    migrate_as_before(url)
    argument = "5 \u20ac, " * 12_500_000
    body = json.dumps([[argument], {}, {}], ensure_ascii=False).encode()
    letter = make_letter("large", message=make_message("large", body=body), args=[argument])
    with dated(url) as database:
        keep(database, make_delivery(make_letter()), make_delivery(letter))
        with database.begin() as connection:
            store_events(connection, [make_entry("sound"), make_entry("large", error=argument)])
        with database.connect() as connection:
            query = select(LETTERS).where(LETTERS.c.original_request_id == "large")
            kept = dict(connection.execute(query).mappings().one())
            assert connection.scalar(text("SELECT count(*) FROM dead_letter_queue")) == 2
            count = "SELECT (SELECT count(*) FROM job_events) + (SELECT count(*) FROM {})"
            assert connection.scalar(text(count.format("lifecycle_rejects"))) == 2
        assert (kept["mirror_error"] is None) is (encoding == "UTF8")
        assert captured(kept).body == body
