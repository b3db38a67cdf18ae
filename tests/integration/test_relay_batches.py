"""Batches of the relay: one bad intent spoils none, lanes do not wait, order and answers stay."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, event, func, select, text, update

from support.letters import died, make_delivery
from taskyard import audit, outbox
from taskyard.access import Identity, Role
from taskyard.audit import rows_of
from taskyard.broker import RedisPublisher
from taskyard.control import replay
from taskyard.control.live_verb import request_verb
from taskyard.database.tables import AUDIT, OUTBOX
from taskyard.errors import PublishFailed
from taskyard.gate import Gate
from taskyard.jobs.states import Event, State
from taskyard.mirror.store_letters import store_letters
from taskyard.records import Records
from taskyard.relay import Relay, read_letters
from taskyard.settings import Settings
from taskyard.wire import Letter

pytestmark = pytest.mark.slow

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

OPS = Identity("ops@example.com", via="token", role=Role.OPERATOR)
WHY = "Infrastructure recovered after 2-hour outage"
MANY = 40


class Harness:
    """Queued jobs and dead letters of one namespace, and a relay that works when it is told to."""

    def __init__(self, settings: Settings, database: Engine) -> None:
        self.settings, self.database = settings, database
        self.client = redis.Redis.from_url(settings.need_redis_url())
        self.records = Records(self.client, settings)
        self.publisher = RedisPublisher(settings, self.client)
        self.relay = self.another_relay()

    def another_relay(self) -> Relay:
        gate = Gate(self.settings.namespace, self.client)
        return Relay(self.settings, self.database, self.records, self.publisher, gate)

    def queued(self) -> str:
        job_id = str(uuid.uuid4())
        self.records.admit(job_id, job_type="t", queue="exec", priority=3, unique_for_s=0)
        return job_id

    def letters(self, count: int) -> list[Letter]:
        made = [died(self.records) for _ in range(count)]
        with self.database.begin() as connection:
            store_letters(connection, [make_delivery(letter) for letter in made])
        return made

    def replay(self, letter: Letter, **options: Any) -> uuid.UUID:
        facts = {"identity": OPS, "reason": WHY, "records": self.records, **options}
        return replay(self.database, letter.letter_id, **facts).request_id

    def cancel(self, job_id: str, **options: Any) -> uuid.UUID:
        facts = {"identity": OPS, "reason": WHY, **options}
        asked = request_verb(self.database, self.records, job_id, Event.CANCEL, **facts)
        return asked.request_id

    def outcomes(self, request: uuid.UUID) -> list[str]:
        with self.database.connect() as connection:
            return [row["outcome"] for row in rows_of(connection, request)]

    def open_intents(self) -> int:
        query = select(func.count()).select_from(OUTBOX).where(OUTBOX.c.done_at.is_(None))
        with self.database.connect() as connection:
            return int(connection.scalar(query) or 0)

    def errors(self) -> dict[uuid.UUID, str | None]:
        query = select(OUTBOX.c.id, OUTBOX.c.last_error)
        with self.database.connect() as connection:
            return {row.id: row.last_error for row in connection.execute(query)}

    def queue_length(self, queue: str = "plan") -> int:
        name = self.settings.broker_name(queue)
        keys = self.client.scan_iter(f"*{name}*")
        return sum(self.client.llen(key) for key in keys if self.client.type(key) == b"list")


@pytest.fixture
def harness(settings: Settings, empty_database: Engine) -> Iterator[Harness]:
    made = Harness(settings, empty_database)
    yield made
    made.client.close()


def statements(database: Engine) -> list[str]:
    """The statements from now on."""
    seen: list[str] = []
    event.listen(
        database, "before_cursor_execute", lambda *arguments: seen.append(str(arguments[2]))
    )
    return seen


def test_a_batch_of_replays_and_cancels_takes_as_many_statements_as_one_of_each(
    harness: Harness,
) -> None:
    counts = []
    for many in (1, MANY // 2):
        replays = [harness.replay(letter) for letter in harness.letters(many)]
        cancels = [harness.cancel(harness.queued()) for _ in range(many)]
        seen = statements(harness.database)
        assert harness.relay.run_once()
        counts.append(len(seen))
        for request in (*replays, *cancels):
            assert harness.outcomes(request) == ["requested", "applied"]
    # Of several letters the sizes are asked first.
    assert counts[1] <= counts[0] + 1
    assert counts[1] < MANY // 2
    assert harness.open_intents() == 0
    assert harness.queue_length() == MANY // 2 + 1


def test_the_answers_of_a_batch_are_written_in_the_order_of_the_requests(harness: Harness) -> None:
    asked = [harness.cancel(harness.queued()) for _ in range(MANY)]
    harness.relay.run_once()
    query = select(AUDIT.c.request_id).where(
        AUDIT.c.request_id.in_(asked), AUDIT.c.outcome == "applied"
    )
    with harness.database.connect() as connection:
        assert list(connection.scalars(query.order_by(AUDIT.c.id))) == asked


def test_each_of_a_batch_gets_its_own_answer(harness: Harness) -> None:
    fine, moved, nowhere, broken = harness.letters(4)
    requests = {
        "fine": harness.replay(fine),
        "moved": harness.replay(moved),
        "nowhere": harness.replay(nowhere, queue="nowhere"),
        "broken": harness.replay(broken),
        "ended": harness.cancel(harness.queued()),
    }
    facts = {"job_type": "t", "queue": "plan", "priority": 3, "generation": 0}
    harness.records.replay(job_id=moved.job_id, epoch=moved.epoch, request_id="another", **facts)
    with harness.database.begin() as connection:
        mine = OUTBOX.c.id == requests["broken"]
        connection.execute(update(OUTBOX).where(mine).values(payload={"edit": None}))
    assert harness.relay.run_once()
    last = {name: harness.outcomes(request)[-1] for name, request in requests.items()}
    assert last["fine"] == last["ended"] == "applied"
    assert last["moved"].startswith("refused: job")
    assert last["nowhere"].startswith("refused: there is no queue 'nowhere'")
    assert last["broken"] == "requested"
    assert harness.errors()[requests["broken"]] == "KeyError: 'letter_id'"


def test_a_message_that_the_broker_refuses_postpones_its_own_intent_alone(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = harness.letters(MANY)
    requests = [harness.replay(letter) for letter in letters]
    unlucky = letters[7].job_id
    publish_many = harness.publisher.publish_many

    def refuse_one(messages: Any) -> list[PublishFailed | None]:
        found = publish_many([one for one in messages if one.job_id != unlucky])
        left = iter(found)
        failure = PublishFailed("the queue is full")
        return [failure if one.job_id == unlucky else next(left) for one in messages]

    monkeypatch.setattr(harness.publisher, "publish_many", refuse_one)
    harness.relay.run_once()
    last = Counter(harness.outcomes(request)[-1] for request in requests)
    assert last == {"applied": MANY - 1, "requested": 1}
    assert harness.errors()[requests[7]] == "the queue is full"
    assert harness.records.read(unlucky).generation == 1


def test_an_intent_that_makes_the_whole_batch_fail_is_set_aside_alone(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [harness.cancel(harness.queued()) for _ in range(MANY)]
    answer_many = audit.answer_many

    def fail_with_one(connection: Any, answers: Any) -> None:
        if any(answer.request_id == requests[11] for answer in answers):
            connection.execute(text("SELECT CAST('no number' AS integer)"))
        answer_many(connection, answers)

    monkeypatch.setattr(audit, "answer_many", fail_with_one)
    assert harness.relay.run_once()
    last = [harness.outcomes(request)[-1] for request in requests]
    assert [place for place, outcome in enumerate(last) if outcome != "applied"] == [11]
    assert "DataError" in str(harness.errors()[requests[11]])


def test_letters_that_do_not_fit_into_memory_together_are_replayed_in_several_batches(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = harness.letters(6)
    one = len(letters[0].message.body)
    monkeypatch.setattr(read_letters, "MOST_BYTES", 2 * one)
    requests = [harness.replay(letter) for letter in letters]
    for replayed in (2, 4, 6):
        assert harness.relay.run_once()
        assert harness.open_intents() == 6 - replayed
    assert {harness.outcomes(request)[-1] for request in requests} == {"applied"}


# -- lanes --------------------------------------------------------------------------------------


def test_a_single_verb_is_answered_before_the_bulk_that_was_requested_first(
    harness: Harness,
) -> None:
    bulk = [harness.cancel(harness.queued(), bulk=True) for _ in range(MANY)]
    single = harness.cancel(harness.queued())
    with harness.database.connect() as holding:
        # Another relay has claimed part of the bulk and does not come back.
        held = outbox.claim(holding, bulk=True, most=MANY // 2)
        assert harness.relay.run_once()
        assert harness.outcomes(single) == ["requested", "applied"]
        answered = [request for request in bulk if harness.outcomes(request)[-1] == "applied"]
        assert set(answered) == set(bulk) - {intent.id for intent in held}
    while harness.relay.run_once():
        pass
    assert {harness.outcomes(request)[-1] for request in bulk} == {"applied"}


def test_one_call_carries_out_a_batch_of_each_lane_and_no_more(harness: Harness) -> None:
    for bulk in (True, False):
        for _ in range(60):
            harness.cancel(harness.queued(), bulk=bulk)
    assert harness.relay.run_once()
    query = select(OUTBOX.c.bulk).where(OUTBOX.c.done_at.is_(None))
    with harness.database.connect() as connection:
        assert Counter(connection.scalars(query)) == {False: 10, True: 10}


def test_postponed_intents_do_not_stand_before_those_that_are_due(harness: Harness) -> None:
    late = [harness.cancel(harness.queued()) for _ in range(MANY)]
    later = func.clock_timestamp() + text("interval '1 hour'")
    with harness.database.begin() as connection:
        connection.execute(update(OUTBOX).values(not_before=later, attempts=5))
    request = harness.cancel(harness.queued())
    assert harness.relay.run_once()
    assert harness.outcomes(request) == ["requested", "applied"]
    assert not harness.relay.run_once()
    # At their time they take their turn before what came after it.
    with harness.database.begin() as connection:
        mine = OUTBOX.c.id == late[0]
        now = func.clock_timestamp()
        connection.execute(update(OUTBOX).where(mine).values(not_before=now))
    harness.cancel(harness.queued())
    with harness.database.connect() as connection:
        (first,) = outbox.claim(connection, bulk=False, most=1)
    assert first.id == late[0]


def test_two_requests_for_one_job_are_carried_out_in_two_batches(harness: Harness) -> None:
    job_id = harness.queued()
    first, second = harness.cancel(job_id), harness.cancel(job_id)
    assert harness.relay.run_once()
    assert [harness.outcomes(each)[-1] for each in (first, second)] == ["applied", "requested"]
    assert harness.relay.run_once()
    assert harness.outcomes(second) == ["requested", "applied"]
    assert harness.records.read(job_id).state is State.CANCELLED


def test_relays_side_by_side_answer_each_request_once(harness: Harness) -> None:
    requests = [harness.replay(letter, bulk=True) for letter in harness.letters(2 * MANY)]
    requests += [harness.cancel(harness.queued(), bulk=True) for _ in range(2 * MANY)]
    relays = [harness.another_relay() for _ in range(4)]
    while any(relay.run_once() for relay in relays):
        pass
    for request in requests:
        assert harness.outcomes(request) == ["requested", "applied"]
    assert harness.queue_length() == 2 * MANY
