"""Dead letters into Postgres: one row a death, whatever the letter holds."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from kombu import Producer
from sqlalchemy import Engine, select, text, update

from support.letters import DIED_US, make_delivery, make_letter, make_message
from support.waiting import eventually
from support.yard import letters_key
from taskyard.access.operator_task_table import REPLAY_TASK
from taskyard.audit import list_unverified
from taskyard.broker import connection as broker_connection
from taskyard.clock import from_us
from taskyard.control import letters
from taskyard.control.nonces import bind_nonce
from taskyard.control.replayed_message import captured
from taskyard.database.tables import LETTERS, UNVERIFIED
from taskyard.deadletters import LetterBox, exchange, mirror_queue
from taskyard.errors import ServerUnreachable
from taskyard.mirror import Delivery
from taskyard.mirror.batch_feeds import LetterFeed
from taskyard.mirror.kombu_letters import KombuLetters
from taskyard.mirror.store_letters import store_letters
from taskyard.settings import Settings
from taskyard.wire import Letter

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

pytestmark = pytest.mark.usefixtures("empty_database")


def keep(database: Engine, *deliveries: Delivery) -> None:
    with database.begin() as connection:
        store_letters(connection, deliveries)


def rows(database: Engine) -> list[dict[str, Any]]:
    with database.connect() as connection:
        return [dict(row) for row in connection.execute(select(LETTERS)).mappings()]


def row(database: Engine) -> dict[str, Any]:
    (only,) = rows(database)
    return only


def test_a_letter_becomes_a_row_with_its_message_byte_exact(database: Engine) -> None:
    letter = make_letter(message=make_message("j", body=bytes(range(256))), args=None, kwargs=None)
    keep(database, make_delivery(letter))
    stored = row(database)
    assert stored["id"] == uuid.UUID(letter.letter_id)
    assert stored["original_request_id"] == letter.job_id
    assert stored["failure_category"] == "retry_exhausted"
    assert stored["decided_at"] == from_us(DIED_US)
    assert stored["status"] == "pending"
    assert captured(stored) == letter.message


def test_a_letter_delivered_often_and_in_one_batch_is_one_row(database: Engine) -> None:
    delivery = make_delivery(make_letter("j"))
    keep(database, delivery, delivery)
    keep(database, delivery)
    assert len(rows(database)) == 1


@pytest.mark.parametrize("together", [True, False])
def test_a_made_up_copy_with_another_time_does_not_hide_the_letter(
    database: Engine, together: bool
) -> None:
    letter = make_letter("j")
    made_up = make_delivery(make_letter("j", last_failure_us=DIED_US + 1, queue="exec", version=9))
    for batch in (
        [(make_delivery(letter), made_up)]
        if together
        else [
            (make_delivery(letter),),
            (made_up,),
        ]
    ):
        keep(database, *batch)
    keep(database, make_delivery(letter))
    assert letters.show(database, letter.letter_id)["queue"] == letter.queue
    (raw,) = [row for row in rows(database) if row["id"] != uuid.UUID(letter.letter_id)]
    assert "so a client made one of them up" in raw["mirror_error"]
    assert bytes(raw["raw_envelope"]) == made_up.body


def test_a_job_that_dies_in_two_generations_has_two_rows(database: Engine) -> None:
    keep(database, *(make_delivery(make_letter("j", generation=n)) for n in (0, 1)))
    assert len(rows(database)) == 2


def test_only_a_higher_version_changes_a_row_and_never_what_operators_did(database: Engine) -> None:
    keep(database, make_delivery(make_letter("j", version=5)))
    with database.begin() as connection:
        connection.execute(update(LETTERS).values(status="cancelled"))
    keep(database, make_delivery(make_letter("j", version=4, code="older")))
    assert row(database)["failure_code"] == "timeout"
    keep(database, make_delivery(make_letter("j", version=6, code="newer")))
    assert (row(database)["failure_code"], row(database)["status"]) == ("newer", "cancelled")


def test_an_escalated_letter_waits_for_a_person(database: Engine) -> None:
    keep(database, make_delivery(make_letter(escalate_to="manual_review_queue")))
    assert row(database)["status"] == "manual_review"


@pytest.mark.parametrize(
    "fault",
    [
        {"args": [{"text": "a\x00b"}]},
        {"kwargs": {"a\x00b": 1}},
        {"error_message": "a\x00b"},
        {"fingerprint": "".join(chr(n) for n in range(0x4E00, 0x5E00))},
        {"epoch": 2**70},
    ],
    ids=["nul-in-json", "nul-in-key", "nul-in-text", "long-index", "huge-number"],
)
def test_a_letter_that_postgres_refuses_is_stored_raw_and_the_others_whole(
    database: Engine, fault: dict[str, Any]
) -> None:
    bad = make_letter("bad", **fault)
    batch = [make_delivery(make_letter()) for _ in range(7)]
    batch.insert(3, make_delivery(bad))
    for _ in range(2):
        keep(database, *batch)
    stored = {found["id"]: found for found in rows(database)}
    assert len(stored) == 8
    raw = stored.pop(uuid.UUID(bad.letter_id))
    assert all(found["mirror_error"] is None for found in stored.values())
    assert raw["mirror_error"]
    assert Letter.parse(raw["raw_envelope"]).message == bad.message
    assert captured(raw) == bad.message


def test_a_text_that_only_speaks_of_nul_is_stored_whole(database: Engine) -> None:
    keep(database, make_delivery(make_letter(args=["write \\u0000 for NUL"])))
    assert row(database)["mirror_error"] is None


@pytest.mark.parametrize(
    "junk",
    [b"", b"junk", b"\x00\xff\x00", b"{}", b"[1]", b"null", b"[" * 100_000, b'{"letter_id": 1}'],
)
def test_bytes_that_are_no_letter_are_a_row_a_message(database: Engine, junk: bytes) -> None:
    delivery = make_delivery(junk)
    keep(database, delivery, make_delivery(make_letter()), make_delivery(junk))
    keep(database, delivery)  # stored, and its acknowledgement was lost
    raws = [found for found in rows(database) if found["raw_envelope"] is not None]
    assert len(raws) == 2
    assert len(rows(database)) == 3
    for raw in raws:
        assert raw["raw_envelope"] == junk
        assert raw["failure_category"] == "undecodable"
        assert raw["mirror_error"].startswith("not a letter: ")
        assert "delivered before" not in raw["mirror_error"]
        assert not raw["replay_eligible"]


def test_junk_that_came_before_may_be_another_row_that_says_so(database: Engine) -> None:
    keep(database, make_delivery(b"junk"))
    keep(database, make_delivery(b"junk", delivered_before=True))
    reasons = sorted(found["failure_reason"] for found in rows(database))
    assert ["another row may have the same content" in why for why in reasons] == [False, True]


@pytest.mark.parametrize("moment", [-(10**17), 10**30])
def test_a_letter_of_an_impossible_time_is_kept(database: Engine, moment: int) -> None:
    keep(database, make_delivery(make_letter(last_failure_us=moment)))
    assert row(database)["raw_envelope"] is not None


def test_a_message_that_the_broker_dropped_becomes_a_letter(database: Engine) -> None:
    died_at = datetime(2026, 1, 2, tzinfo=UTC)
    death = {"reason": "expired", "queue": "plan", "count": 1, "time": died_at}
    message = make_message("dropped-1")
    headers = {**message.headers, "x-death": [death], "x-first-death-queue": "plan"}
    delivery = Delivery(message.body, headers, message.properties, "application/json", "utf-8")
    keep(database, delivery, delivery)
    stored = row(database)
    assert stored["original_request_id"] == "dropped-1"
    assert (stored["failure_category"], stored["queue"]) == ("expired", "plan")
    assert stored["decided_at"] == died_at
    assert captured(stored).body == message.body
    assert not any(name.startswith("x-") for name in stored["headers"])


def dropped(headers: dict[str, Any], **changes: Any) -> Delivery:
    """A message that the broker dropped in one certain second."""
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    death = {"reason": "expired", "queue": "plan", "count": 1, "time": moment}
    body = make_message("x").body
    return Delivery(
        body, {**headers, "x-death": [death]}, {}, "application/json", "utf-8", **changes
    )


def test_dropped_messages_without_an_id_are_as_many_letters(database: Engine) -> None:
    first, second = dropped({"task": "t"}), dropped({"task": "t"})
    keep(database, first, second)
    keep(database, first)  # stored, and its acknowledgement was lost
    assert len(rows(database)) == 2
    assert len({found["original_request_id"] for found in rows(database)}) == 2
    keep(database, dropped({"task": "t"}, delivered_before=True))
    [repeated] = [found for found in rows(database) if found["evidence"].get("possibly_repeated")]
    assert "another letter may hold the same message" in repeated["failure_reason"]


def test_dropped_messages_of_two_tasks_with_one_id_are_two_letters(database: Engine) -> None:
    keep(database, dropped({"id": "j", "task": "a"}), dropped({"id": "j", "task": "b"}))
    keep(database, dropped({"id": "j", "task": "b"}, delivered_before=True))
    assert sorted(found["job_type"] for found in rows(database)) == ["a", "b"]
    assert len({found["id"] for found in rows(database)}) == 2


def test_a_dropped_message_that_no_parser_gets_through_is_a_letter_all_the_same(
    database: Engine,
) -> None:
    death = {
        "reason": "expired",
        "queue": "plan",
        "count": 1,
        "time": datetime(2026, 1, 2, tzinfo=UTC),
    }
    headers = {**make_message("dropped-2").headers, "x-death": [death]}
    body = b"[" * 100_000
    keep(database, Delivery(body, headers, {}, "application/json", "utf-8"))
    stored = row(database)
    assert (stored["failure_category"], stored["args"]) == ("expired", None)
    assert captured(stored).body == body


def waits_for_a_lock(database: Engine) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = :n"
    with database.connect() as connection:
        return connection.scalar(text(query), {"n": database.url.database}) == 1


def test_two_mirrors_that_store_the_same_junk_at_once_store_it_once(database: Engine) -> None:
    junk = make_delivery(b"the same junk")
    with database.begin() as first:
        store_letters(first, [junk])
        other = threading.Thread(target=keep, args=(database, junk))
        other.start()
        eventually(lambda: waits_for_a_lock(database), "the second to wait for the first")
    other.join(timeout=30)
    assert len(rows(database)) == 1


# -- over the real broker ---------------------------------------------------------------------


@pytest.fixture
def source(settings: Settings) -> Iterator[KombuLetters]:
    made = open_source(settings)
    yield made
    made.close()


def open_source(settings: Settings) -> KombuLetters:
    return KombuLetters(broker_connection(settings), mirror_queue(settings), prefetch=500)


def post(settings: Settings, *letters: Letter) -> None:
    box = LetterBox(settings)
    for letter in letters:
        box.post(letter)
    box.close()


def test_what_lies_in_the_mirrors_queue_is_stored_and_then_acknowledged(
    database: Engine, settings: Settings, source: KombuLetters
) -> None:
    letters = [make_letter() for _ in range(20)]
    post(settings, *letters)
    assert LetterFeed(database, source).step(wait_s=1) == 20
    assert {str(found["id"]) for found in rows(database)} == {one.letter_id for one in letters}
    source.close()
    later = open_source(settings)
    assert later.take(10, wait_s=0.1) == []
    later.close()


def test_junk_on_the_dead_letter_exchange_does_not_stop_the_mirror(
    database: Engine, settings: Settings, source: KombuLetters
) -> None:
    post(settings, make_letter())
    with broker_connection(settings) as connection:
        producer = Producer(connection.default_channel)
        for body in (b"\x80junk", b"{}"):
            producer.publish(
                body,
                exchange=exchange(settings),
                declare=[mirror_queue(settings)],
                routing_key="a.b.c",
                content_type="application/data",
                content_encoding="binary",
            )
    assert LetterFeed(database, source).step(wait_s=1) == 3
    assert sorted(found["failure_category"] for found in rows(database)) == [
        "retry_exhausted",
        "undecodable",
        "undecodable",
    ]


class DiesBeforeAck:
    """A real source whose process dies between the commit and the acknowledgement."""

    def __init__(self, source: KombuLetters) -> None:
        self.take = source.take

    def acknowledge(self, deliveries: object) -> None:
        raise KeyboardInterrupt


def test_a_crash_between_commit_and_acknowledgement_doubles_and_loses_nothing(
    database: Engine, settings: Settings, source: KombuLetters
) -> None:
    post(settings, make_letter(), make_letter())
    with pytest.raises(KeyboardInterrupt):
        LetterFeed(database, DiesBeforeAck(source)).step(wait_s=1)
    assert len(rows(database)) == 2
    source.close()
    again = open_source(settings)
    assert LetterFeed(database, again).step(wait_s=1) == 2
    assert len(rows(database)) == 2
    again.close()


@pytest.mark.parametrize("raw", [b"no document at all", b"{}", b"\x80\x00", b"[]"])
def test_raw_junk_in_the_queues_list_is_mirrored_like_everything_else(
    database: Engine, settings: Settings, source: KombuLetters, raw: bytes
) -> None:
    post(settings, make_letter())
    with redis.Redis.from_url(settings.need_broker_url()) as client:
        client.lpush(letters_key(settings), raw)
    post(settings, make_letter())
    feed = LetterFeed(database, source)
    eventually(lambda: feed.step(wait_s=0.2) >= 0 and len(rows(database)) == 3, "three rows")


def test_a_body_that_kombu_cannot_decompress_is_mirrored(
    database: Engine, settings: Settings, source: KombuLetters
) -> None:
    with broker_connection(settings) as connection:
        Producer(connection.default_channel).publish(
            b"junk",
            exchange=exchange(settings),
            declare=[mirror_queue(settings)],
            routing_key="a.b.c",
            content_type="application/data",
            content_encoding="binary",
            headers={"compression": "application/x-gzip"},
        )
    assert LetterFeed(database, source).step(wait_s=1) == 1
    assert row(database)["failure_category"] == "undecodable"


def test_a_lost_connection_to_the_broker_is_named_and_loses_nothing(
    database: Engine, settings: Settings, source: KombuLetters
) -> None:
    feed = LetterFeed(database, source)
    assert feed.step(wait_s=0.1) == 0
    letter = make_letter()
    post(settings, letter)
    taken = source.take(10, wait_s=1)
    assert len(taken) == 1
    with redis.Redis.from_url(settings.need_broker_url()) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    lost: list[ServerUnreachable] = []

    def stored() -> bool:
        try:
            feed.step(wait_s=0.2)
        except ServerUnreachable as error:
            lost.append(error)
        return len(rows(database)) == 1

    eventually(stored, "the letter, taken again")
    assert all("broker" in str(error) for error in lost)


def test_an_operator_message_that_no_handler_saw_is_counted_once(database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(UNVERIFIED.delete())
    dead = [
        make_letter(job_id="a", job_type=REPLAY_TASK, category="undecodable"),
        make_letter(job_id="b", job_type="taskyard.ops.nothing", category="unknown_task"),
        make_letter(job_id="c", job_type=REPLAY_TASK, category="non_retryable"),
        make_letter(job_id="d", job_type="shop.pay", category="undecodable"),
    ]
    for _ in range(2):
        keep(database, *map(make_delivery, dead))
    counts = {
        (row["source"], row["why"]): row["count"] for row in list_unverified(database, None, 9)
    }
    assert counts == {(REPLAY_TASK, "undecodable"): 1, ("taskyard.ops.nothing", "unknown_task"): 1}


@pytest.mark.parametrize("category", ["expired", "poison", "timeout", "internal_error"])
def test_an_operator_message_that_ended_otherwise_is_counted_unless_its_handler_accepted_it(
    database: Engine, category: str
) -> None:
    with database.begin() as connection:
        connection.execute(UNVERIFIED.delete())
        bind_nonce(connection, uuid.uuid4().hex, "accepted", datetime.now(UTC))
    keep(
        database,
        *(
            make_delivery(make_letter(job_id=job, job_type=REPLAY_TASK, category=category))
            for job in ("accepted", "never-looked-at")
        ),
    )
    found = {
        (row["source"], row["why"]): row["count"] for row in list_unverified(database, None, 9)
    }
    assert found == {(REPLAY_TASK, category): 1}
