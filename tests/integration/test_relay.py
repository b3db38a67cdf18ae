"""The relay between real Postgres, real records and a real broker, killed at every seam."""

from __future__ import annotations

import base64
import json
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, event, func, select, text, update

from support.audit import entry
from support.letters import EMBED, died, make_delivery
from support.waiting import eventually
from support.yard import list_key
from taskyard import outbox
from taskyard.access import Identity, Role
from taskyard.audit import list_unverified, rows_of
from taskyard.audit import write as audit_write
from taskyard.broker import RedisPublisher
from taskyard.broker.redis_keys import PLAIN, Layout
from taskyard.control import Edit, ReplayRequested, letters, replay, wait_outcome
from taskyard.control.replay_history import replay_history_of
from taskyard.database import create_partitions
from taskyard.database.tables import LETTERS, OUTBOX
from taskyard.errors import PublishFailed
from taskyard.gate import Gate
from taskyard.install import AnnouncedQueue, AnnouncedQueues, AnyQueuePublisher
from taskyard.install.announced_queues import broker_mark
from taskyard.jobs.states import State
from taskyard.mirror.store_letters import store_letters
from taskyard.ops.cli.dlq.describe_replays import waiting
from taskyard.records import Records, Run
from taskyard.relay import Relay
from taskyard.settings import Settings
from taskyard.wire import HEADER, Letter, Stamp

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

OPS = Identity("ops@example.com", via="token", role=Role.OPERATOR)
WHY = "Infrastructure recovered after 2-hour outage"


class Crash(BaseException):
    """The process dies here."""


class ServerHarness:
    """One namespace with a job that died, its letter in Postgres, and a relay."""

    def __init__(self, settings: Settings, database: Engine) -> None:
        self.settings, self.database = settings, database
        self.client = redis.Redis.from_url(settings.need_redis_url())
        self.records = Records(self.client, settings)
        self.publisher = RedisPublisher(settings, self.client)
        self.relay = Relay(
            settings,
            database,
            self.records,
            self.publisher,
            Gate(settings.namespace, self.client),
        )

    def letter(self) -> Letter:
        letter = died(self.records)
        with self.database.begin() as connection:
            store_letters(connection, [make_delivery(letter)])
        return letter

    def replay(self, letter: Letter, **options: Any) -> ReplayRequested:
        return replay(self.database, letter.letter_id, identity=OPS, reason=WHY, **options)

    def messages(self, queue: str = "plan") -> list[dict[str, Any]]:
        name = list_key(self.settings, queue)
        keys = [name, *(f"{name}\x06\x16{step}" for step in (3, 6, 9))]
        return [json.loads(raw) for key in keys for raw in self.client.lrange(key, 0, -1)]

    def stamps(self) -> set[tuple[int, int, int]]:
        raw = [message["headers"][HEADER] for message in self.messages()]
        return {(stamp["epoch"], stamp["generation"], stamp["seq"]) for stamp in raw}

    def outcomes(self, asked: ReplayRequested) -> list[str]:
        with self.database.connect() as connection:
            return [row["outcome"] for row in rows_of(connection, asked.request_id)]

    def begin(self, letter: Letter, generation: int) -> object:
        stamp = Stamp(letter.epoch, generation)
        return self.records.attempts.begin(
            letter.job_id,
            stamp,
            holder=str(uuid.uuid4()),
            worker="w",
            job_type=letter.job_type,
            queue=letter.queue,
        )


@pytest.fixture
def yard(settings: Settings, empty_database: Engine) -> Iterator[ServerHarness]:
    made = ServerHarness(settings, empty_database)
    yield made
    made.client.close()


def open_intents(database: Engine) -> int:
    query = select(func.count()).select_from(OUTBOX).where(OUTBOX.c.done_at.is_(None))
    with database.connect() as connection:
        return int(connection.scalar(query) or 0)


def test_a_replay_moves_the_record_publishes_the_message_and_is_audited(
    yard: ServerHarness,
) -> None:
    letter = yard.letter()
    asked = yard.replay(letter)
    assert yard.relay.run_once()
    assert yard.records.read(letter.job_id).state is State.ACCEPTED
    assert yard.stamps() == {(letter.epoch, 1, 0)}
    (message,) = yard.messages()
    assert message["headers"]["expires"] is None
    assert wait_outcome(yard.database, asked.request_id, timeout_s=0) == "applied"
    assert yard.outcomes(asked) == ["requested", "applied"]
    assert not yard.relay.run_once()
    assert isinstance(yard.begin(letter, 1), Run)


def test_the_answer_is_audited_for_the_same_people_as_the_request(yard: ServerHarness) -> None:
    asked = yard.replay(yard.letter(), on_behalf_of="customer@example.com")
    yard.relay.run_once()
    with yard.database.connect() as connection:
        first, last = rows_of(connection, asked.request_id)
    assert last["detail"] == {"generation": 1, "queue": "plan"}
    for name in set(first) - {"id", "outcome", "detail", "performed_at", "transaction_id"}:
        assert first[name] == last[name]


def test_an_edited_payload_and_another_queue_arrive(yard: ServerHarness) -> None:
    letter = yard.letter()
    yard.replay(letter, payload=Edit([{"n": 2}], {"k": 1}), queue="locator")
    yard.relay.run_once()
    assert yard.messages("plan") == []
    (message,) = yard.messages("locator")
    assert decode(message) == [[{"n": 2}], {"k": 1}, EMBED]


def decode(message: dict[str, Any]) -> object:
    encoded = message["properties"].get("body_encoding") == "base64"
    return json.loads(base64.b64decode(message["body"]) if encoded else message["body"])


# -- killed at every seam -----------------------------------------------------------------------


def die_after_the_record_moved(yard: ServerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = yard.records.replay_many

    def replay_and_die(calls: Any) -> None:
        opened(calls)
        raise Crash

    monkeypatch.setattr(yard.records, "replay_many", replay_and_die)


def die_before_the_publication(yard: ServerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object, **__: object) -> None:
        raise Crash

    monkeypatch.setattr(yard.publisher, "publish_many", die)


def die_after_the_publication(yard: ServerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    published = yard.publisher.publish_many

    def publish_and_die(messages: Any) -> None:
        published(messages)
        raise Crash

    monkeypatch.setattr(yard.publisher, "publish_many", publish_and_die)


def die_before_the_commit(yard: ServerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(_: object) -> None:
        event.remove(yard.database, "commit", die)
        raise Crash

    event.listen(yard.database, "commit", die)


@pytest.mark.parametrize(
    "seam",
    [
        die_after_the_record_moved,
        die_before_the_publication,
        die_after_the_publication,
        die_before_the_commit,
    ],
)
def test_a_relay_that_dies_loses_nothing_and_the_next_one_doubles_nothing(
    yard: ServerHarness, monkeypatch: pytest.MonkeyPatch, seam: Any
) -> None:
    letter = yard.letter()
    asked = yard.replay(letter)
    with monkeypatch.context() as patch:
        seam(yard, patch)
        with pytest.raises(Crash):
            yard.relay.run_once()
    assert yard.outcomes(asked) == ["requested"]
    assert open_intents(yard.database) == 1

    assert yard.relay.run_once()
    assert not yard.relay.run_once()
    assert yard.outcomes(asked) == ["requested", "applied"]
    assert open_intents(yard.database) == 0
    record = yard.records.read(letter.job_id)
    assert (record.state, record.generation) == (State.ACCEPTED, 1)
    assert yard.stamps() == {(letter.epoch, 1, 0)}
    begun = [yard.begin(letter, 1) for _ in yard.messages()]
    assert [type(answer) for answer in begun].count(Run) == 1


# -- refusals and delays ------------------------------------------------------------------------


def test_a_record_that_moved_on_refuses_and_the_letter_is_open_again(yard: ServerHarness) -> None:
    letter = yard.letter()
    asked = yard.replay(letter)
    yard.records.replay(
        job_id=letter.job_id,
        epoch=letter.epoch,
        generation=0,
        request_id="another",
        job_type=letter.job_type,
        queue="plan",
        priority=3,
    )
    yard.relay.run_once()
    outcome = wait_outcome(yard.database, asked.request_id, timeout_s=0)
    assert outcome.startswith("refused: job")
    shown = letters.show(yard.database, letter.letter_id)
    assert (shown["status"], shown["replayed_at"]) == ("pending", None)
    assert yard.messages() == []
    assert open_intents(yard.database) == 0


def test_an_unknown_queue_is_refused_before_the_record_moves(yard: ServerHarness) -> None:
    letter = yard.letter()
    with yard.database.begin() as connection:
        connection.execute(update(LETTERS).values(status="manual_review"))
    asked = yard.replay(letter, queue="nowhere")
    yard.relay.run_once()
    assert yard.outcomes(asked)[1].startswith("refused: there is no queue 'nowhere'")
    assert yard.records.read(letter.job_id).state is State.DEAD_LETTERED
    assert letters.show(yard.database, letter.letter_id)["status"] == "manual_review"


def test_a_broker_that_does_not_answer_postpones_and_never_refuses(
    yard: ServerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = yard.letter()
    asked = yard.replay(letter)

    def fail(messages: Any) -> list[PublishFailed]:
        return [PublishFailed("the broker is away") for _ in messages]

    with monkeypatch.context() as patch:
        patch.setattr(yard.publisher, "publish_many", fail)
        assert yard.relay.run_once()
    assert not yard.relay.run_once()
    with yard.database.begin() as connection:
        row = connection.execute(select(OUTBOX)).mappings().one()
        assert (row["attempts"], row["last_error"]) == (1, "the broker is away")
    # Who asked hears why it is not done, and later, who looks at the letter.
    why = "pending: the broker is away"
    assert wait_outcome(yard.database, asked.request_id, 0) == why
    (replay,) = replay_history_of(
        yard.database, letters.show(yard.database, letter.letter_id)
    ).replays
    assert replay.outcome == why
    assert "tries again: the broker is away" in waiting(replay.outcome.partition(": ")[2])
    with yard.database.begin() as connection:
        connection.execute(update(OUTBOX).values(not_before=None))
    assert yard.relay.run_once()
    assert yard.outcomes(asked) == ["requested", "applied"]
    assert wait_outcome(yard.database, asked.request_id, 0) == "applied"
    assert yard.stamps() == {(letter.epoch, 1, 0)}


def test_a_letter_that_moves_into_the_partition_of_its_week_is_no_letter_of_the_past(
    yard: ServerHarness,
) -> None:
    letter = yard.letter()
    asked = yard.replay(letter)
    with ThreadPoolExecutor(1) as beside:
        with yard.database.begin() as connection:
            assert create_partitions(connection, datetime.now(UTC))
            relayed = beside.submit(yard.relay.run_once)
            eventually(lambda: waits_for_a_lock(yard), "the relay waits for the move")
        assert relayed.result(20)
    assert yard.outcomes(asked) == ["requested", "applied"]


def waits_for_a_lock(yard: ServerHarness) -> bool:
    query = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    with yard.database.connect() as connection:
        return connection.execute(query).scalar_one() > 0


def test_while_the_workers_of_an_app_read_different_places_a_replay_waits(
    settings: Settings, yard: ServerHarness
) -> None:
    queue = f"{settings.namespace}.orders"
    publisher = AnyQueuePublisher(settings, yard.records)
    gate = Gate(settings.namespace, yard.client)
    relay = Relay(settings, yard.database, yard.records, publisher, gate, queues=publisher)
    places = AnnouncedQueues(yard.client, settings.namespace)
    mark = broker_mark(yard.client, settings.namespace)
    new = Layout(prefix=f"{settings.namespace}/", separator="~", steps=(0, 5))
    now_us = yard.records.now_us()
    places.report([AnnouncedQueue(queue, mark, layout, now_us) for layout in (PLAIN, new)])
    letter = died(yard.records).model_copy(update={"queue": queue})
    with yard.database.begin() as connection:
        store_letters(connection, [make_delivery(letter)])
    asked = yard.replay(letter)

    assert relay.run_once()
    assert not relay.run_once()

    with yard.database.begin() as connection:
        row = connection.execute(select(OUTBOX)).mappings().one()
        assert (row["attempts"], row["done_at"]) == (1, None)
        assert row["not_before"] > row["created_at"]
        assert (
            f"the workers of queue {queue!r} read it under 2 different sets of keys"
            in row["last_error"]
        )
        connection.execute(update(OUTBOX).values(not_before=None))
    assert yard.outcomes(asked) == ["requested"]
    assert yard.records.read(letter.job_id).state is State.DEAD_LETTERED
    assert lying(yard, queue, PLAIN, new) == [0, 0]

    # The old workers have ended: only the new ones speak, minutes later.
    places.report([AnnouncedQueue(queue, mark, new, now_us + 600_000_000)])
    assert relay.run_once()
    assert yard.outcomes(asked) == ["requested", "applied"]
    assert yard.records.read(letter.job_id).state is State.ACCEPTED
    assert lying(yard, queue, PLAIN, new) == [0, 1]
    publisher.close()


def lying(yard: ServerHarness, queue: str, *layouts: Layout) -> list[int]:
    return [sum(yard.client.llen(key) for key in layout.keys(queue)) for layout in layouts]


def test_an_intent_that_nobody_foresaw_does_not_stop_the_others(yard: ServerHarness) -> None:
    with yard.database.begin() as connection:
        for kind in ("replay", "invented_later"):
            asked_for = entry(target_request_id=kind)
            audit_write(connection, asked_for)
            outbox.put(
                connection, outbox.Intent(asked_for.request_id, kind, kind, 1, {"edit": None})
            )
    asked = yard.replay(yard.letter())
    assert [yard.relay.run_once() for _ in range(2)] == [True, False]
    assert yard.outcomes(asked) == ["requested", "applied"]
    with yard.database.connect() as connection:
        errors = set(connection.scalars(select(OUTBOX.c.last_error)))
    assert errors == {
        None,
        "KeyError: 'letter_id'",
        "this version does not know the intent 'invented_later'",
    }


def denials(yard: ServerHarness) -> Counter[str]:
    rows = list_unverified(yard.database, None, 100)
    return Counter({row["source"]: row["count"] for row in rows})


def test_an_intent_that_is_not_in_the_audit_log_is_not_carried_out(yard: ServerHarness) -> None:
    letter = yard.letter()
    other, asked = yard.letter(), yard.replay(letter)
    with yard.database.begin() as connection:
        # The role of mirror and relay may write to the outbox: a new intent, or another job's id.
        mine = select(OUTBOX.c.payload).where(OUTBOX.c.id == asked.request_id)
        payload = {**connection.scalars(mine).one(), "letter_id": other.letter_id}
        connection.execute(
            update(OUTBOX)
            .where(OUTBOX.c.id == asked.request_id)
            .values(job_id=other.job_id, payload=payload)
        )
        outbox.put(connection, outbox.Intent(uuid.uuid4(), "replay", other.job_id, 1, payload))
    before = denials(yard)
    # The intent that was written for the other job waits for the one whose job was changed.
    assert [yard.relay.run_once() for _ in range(3)] == [True, True, False]
    assert denials(yard) - before == {"outbox": 2}
    for one in (letter, other):
        assert yard.records.read(one.job_id).state is State.DEAD_LETTERED
    assert yard.outcomes(asked) == ["requested"]


def test_intents_of_one_job_wait_for_each_other_and_other_jobs_do_not(yard: ServerHarness) -> None:
    with yard.database.begin() as connection:
        for job in ("a", "a", "b"):
            outbox.put(connection, outbox.Intent(uuid.uuid4(), "replay", job, 1, {}))
    with yard.database.connect() as one, yard.database.connect() as two:
        ((first,), (second,)) = (outbox.claim(each, bulk=False, most=1) for each in (one, two))
        assert (first.job_id, second.job_id) == ("a", "b")
        with yard.database.connect() as three:
            assert outbox.claim(three, bulk=False, most=9) == []


def test_a_running_relay_answers_an_operator_within_two_seconds(yard: ServerHarness) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=yard.relay.run, args=(stop,))
    thread.start()
    try:
        asked = yard.replay(yard.letter())
        assert wait_outcome(yard.database, asked.request_id, timeout_s=30) == "applied"
        eventually(yard.stamps, "the message")
    finally:
        stop.set()
        thread.join(timeout=30)
    assert not thread.is_alive()
