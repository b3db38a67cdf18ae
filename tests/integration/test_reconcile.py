"""Every kind of drift is made on real servers, found, and mended or told."""

from __future__ import annotations

import base64
import json
import logging
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, select, update

from support.letters import died, make_delivery, make_letter, make_message
from support.yard import letters_key, list_key
from taskyard.access import Identity, Role
from taskyard.broker import RedisPublisher
from taskyard.control import replay
from taskyard.database.tables import LEDGER, LETTERS, OUTBOX
from taskyard.deadletters import LetterBox
from taskyard.errors import PublishFailed
from taskyard.gate import Gate
from taskyard.jobs.states import State
from taskyard.mirror.store_letters import store_letters
from taskyard.reconcile import Kind, Reconciler, Report, watch
from taskyard.records import Publication, Records
from taskyard.relay import Relay
from taskyard.settings import Settings
from taskyard.wire import Letter
from taskyard.wire.unconfirmed_message import Unsent

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

AGO_US = 3_600_000_000
OPS = Identity("ops@example.com", via="token", role=Role.OPERATOR)
WHY = "Infrastructure recovered after 2-hour outage"


class ServerHarness:
    """One namespace with everything that a reconciler compares."""

    def __init__(self, settings: Settings, database: Engine) -> None:
        self.settings, self.database = settings, database
        self.client = redis.Redis.from_url(settings.need_redis_url())
        self.records = Records(self.client, settings)
        self.publisher = RedisPublisher(settings, self.client)
        self.reconciler = Reconciler(settings, database, self.records, self.publisher)
        gate = Gate(settings.namespace, self.client)
        self.relay = Relay(settings, database, self.records, self.publisher, gate)

    def look(self, **options: Any) -> Report:
        return self.reconciler.run(**options)

    def admit(self, publication: Publication | None = None) -> str:
        job = str(uuid.uuid4())
        self.records.admit(
            job, job_type="t", queue="plan", priority=3, unique_for_s=0, publication=publication
        )
        return job

    def begin(self, job: str) -> Any:
        return self.records.attempts.begin(
            job, None, holder="h", worker="w", job_type="t", queue="plan"
        )

    def set(self, job: str, **fields: Any) -> None:
        self.client.hset(self.records.keys.record(job), mapping=fields)

    def age(self, job: str, *more: str) -> None:
        """Let everything that the record notes be an hour ago."""
        known = self.client.hgetall(self.records.keys.record(job))
        times = {"admitted", "started", "decided", "ended", *more}
        self.set(
            job, **{k.decode(): int(v) - AGO_US for k, v in known.items() if k.decode() in times}
        )

    def queued(self, queue: str = "plan") -> list[dict[str, Any]]:
        name = list_key(self.settings, queue)
        keys = [name, *(f"{name}\x06\x16{step}" for step in (3, 6, 9))]
        return [json.loads(raw) for key in keys for raw in self.client.lrange(key, 0, -1)]

    def empty_queue(self, queue: str = "plan") -> None:
        """What a broker does that loses its data."""
        name = list_key(self.settings, queue)
        self.client.delete(name, *(f"{name}\x06\x16{step}" for step in (3, 6, 9)))

    def letter(self) -> Letter:
        letter = died(self.records)
        self.store(letter)
        return letter

    def store(self, letter: Letter) -> None:
        with self.database.begin() as connection:
            store_letters(connection, [make_delivery(letter)])

    def replay(self, letter: Letter) -> Any:
        return replay(self.database, letter.letter_id, identity=OPS, reason=WHY)

    def status(self, letter: Letter) -> str:
        query = select(LETTERS.c.status).where(LETTERS.c.id == uuid.UUID(letter.letter_id))
        with self.database.connect() as connection:
            return str(connection.scalar(query))

    def no_events(self) -> None:
        """As after a mirror that stored them, into a Postgres that lost them."""
        self.client.delete(self.records.keys.lifecycle)


@pytest.fixture
def yard(settings: Settings, empty_database: Engine) -> Iterator[ServerHarness]:
    made = ServerHarness(settings, empty_database)
    yield made
    made.reconciler.close()
    for key in made.client.scan_iter(f"*{settings.namespace}*", count=1000):
        made.client.delete(key)
    made.client.close()


def test_an_empty_yard_agrees_with_itself(yard: ServerHarness) -> None:
    report = yard.look()
    assert (report.total, report.complete, report.gate) == (0, True, None)
    assert set(report.document()["drift"]) == {kind.value for kind in Kind}


# -- jobs without a message -----------------------------------------------------------------------


def unsent(countdown_s: float = 0) -> Publication:
    kept = Unsent(message=make_message("kept"), countdown_s=countdown_s)
    return Publication("", kept.encode(), "", "", "", 0)


def test_a_job_that_was_never_published_is_published_from_what_its_record_kept(
    yard: ServerHarness,
) -> None:
    job = yard.admit(unsent())
    yard.age(job)
    assert yard.look().drift[Kind.UNPUBLISHED] == 1
    assert yard.queued() == []
    assert yard.look(repair=True).repaired[Kind.UNPUBLISHED] == 1
    (message,) = yard.queued()
    record = yard.records.read(job)
    assert message["headers"]["taskyard"]["epoch"] == record.epoch
    assert (record.fields["published"], "unsent" in record.fields) == ("1", False)
    assert yard.look(repair=True).drift[Kind.UNPUBLISHED] == 0
    assert len(yard.queued()) == 1


def test_a_countdown_that_was_never_published_waits_in_the_delay_store(yard: ServerHarness) -> None:
    job = yard.admit(unsent(countdown_s=7200))
    yard.age(job)
    assert yard.look(repair=True).repaired[Kind.UNPUBLISHED] == 1
    assert (yard.queued(), yard.publisher.delay_store.waiting()) == ([], 1)


def test_two_repairs_at_once_publish_once(yard: ServerHarness) -> None:
    job = yard.admit(unsent())
    yard.age(job)
    version = yard.records.read(job).fields["version"]
    yard.look(repair=True)
    # As a second reconciler saw it before the first one confirmed.
    yard.set(job, published="0", unsent=unsent().head, version=version)
    yard.empty_queue()
    report = yard.look(repair=True)
    assert (report.drift[Kind.UNPUBLISHED], report.repaired[Kind.UNPUBLISHED]) == (1, 0)
    assert yard.queued() == []


def test_a_running_job_without_a_message_is_told_and_nothing_is_invented(
    yard: ServerHarness,
) -> None:
    job = yard.admit()
    yard.begin(job)
    yard.age(job, "lease_until")
    report = yard.look(repair=True)
    assert report.drift[Kind.STRANDED_RUNNING] == 1
    assert report.repaired[Kind.STRANDED_RUNNING] == 0
    assert report.examples[Kind.STRANDED_RUNNING] == [job]
    assert yard.records.read(job).state is State.RUNNING


@pytest.mark.parametrize("place", ["queue", "unacked", "delayed"])
def test_a_message_in_any_place_keeps_its_job_from_being_stranded(
    yard: ServerHarness, place: str
) -> None:
    job = yard.admit()
    yard.begin(job)
    yard.age(job, "lease_until")
    name = list_key(yard.settings, "plan")
    message = json.dumps({"headers": {"id": job}, "properties": {}})
    match place:
        case "queue":
            yard.client.lpush(f"{name}\x06\x166", message)
        case "unacked":
            yard.client.hset(
                f"{yard.settings.namespace}:unacked", "o:1", f'[{message}, "", "{name}"]'
            )
            yard.client.zadd(f"{yard.settings.namespace}:unacked_index", {"o:1": time.time()})
        case "delayed":
            yard.client.hset(
                f"{yard.settings.namespace}:delayed:messages", "m", f"{name}\n{message}"
            )
            yard.client.zadd(f"{yard.settings.namespace}:delayed", {"m": 1})
    assert yard.look().drift[Kind.STRANDED_RUNNING] == 0


@pytest.mark.parametrize("place", ["list", "body"])
def test_junk_that_no_parser_gets_through_does_not_end_the_look(
    yard: ServerHarness, place: str
) -> None:
    deep = b"[" * 100_000
    body = base64.b64encode(deep).decode()
    document = {"body": body, "headers": {}, "properties": {"body_encoding": "base64"}}
    raw = deep if place == "list" else json.dumps(document).encode()
    before = yard.look().looked_at["messages"]  # other namespaces' messages in shared keys
    yard.client.lpush(list_key(yard.settings, "plan"), raw)
    assert yard.look().looked_at["messages"] == before + 1


def test_an_overdue_retry_whose_message_is_gone_is_told(yard: ServerHarness) -> None:
    job = yard.admit()
    yard.set(job, state="retrying", seq=1, due=1)
    assert yard.look().drift[Kind.STRANDED_RETRYING] == 1


def test_a_replayed_job_whose_message_is_gone_runs_from_its_letter(yard: ServerHarness) -> None:
    letter = yard.letter()
    yard.replay(letter)
    assert yard.relay.run_once()
    assert len(yard.queued()) == 1
    yard.empty_queue()
    yard.age(letter.job_id)
    assert yard.look(repair=True).repaired[Kind.UNPUBLISHED] == 1
    (message,) = yard.queued()
    stamp = message["headers"]["taskyard"]
    assert (stamp["epoch"], stamp["generation"], stamp["seq"]) == (letter.epoch, 1, 0)


# -- halves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        (Kind.DELAYED_WITHOUT_MESSAGE, lambda c, ns: c.zadd(f"{ns}:delayed", {"m": 1})),
        (Kind.DELAYED_WITHOUT_TIME, lambda c, ns: c.hset(f"{ns}:delayed:messages", "m", "q\n{}")),
        (Kind.UNACKED_WITHOUT_MESSAGE, lambda c, ns: c.zadd(f"{ns}:unacked_index", {"o:1": 1})),
        (Kind.UNACKED_WITHOUT_TIME, lambda c, ns: c.hset(f"{ns}:unacked", "o:1", '[{}, "", "q"]')),
    ],
)
def test_half_a_pair_is_found_and_mended(
    yard: ServerHarness, kind: Kind, make: Callable[[redis.Redis, str], object]
) -> None:
    make(yard.client, yard.settings.namespace)
    assert yard.look().drift == {kind: 1}
    assert yard.look(repair=True).repaired == {kind: 1}
    assert yard.look().total == 0


# -- letters and ledger ---------------------------------------------------------------------------


def test_a_letter_that_postgres_lost_is_published_again_from_its_copy(yard: ServerHarness) -> None:
    letter = died(yard.records)
    box = LetterBox(yard.settings)
    box.post(letter)
    box.close()
    yard.client.delete(letters_key(yard.settings))
    yard.age(letter.job_id)
    aged = yard.records.read(letter.job_id).number("decided")
    assert aged
    assert yard.look(repair=True).repaired[Kind.LETTER_MISSING] == 1
    assert yard.client.llen(letters_key(yard.settings)) == 1
    assert yard.look().drift[Kind.LETTER_MISSING] == 0, "it is on its way"


def test_a_copy_that_nobody_can_read_is_told_and_the_look_goes_on(yard: ServerHarness) -> None:
    job = yard.admit(unsent())
    yard.age(job)
    yard.set(job, unsent="{")
    letter = died(yard.records)
    yard.age(letter.job_id)
    moment = yard.records.read(letter.job_id).number("decided") // 1000
    kept = f"{yard.settings.namespace}:letters:kept"
    yard.client.xadd(kept, {"id": letter.letter_id, "letter": b"no zlib"}, id=f"{moment}-0")
    report = yard.look(repair=True)
    assert (report.drift[Kind.UNPUBLISHED], report.drift[Kind.LETTER_MISSING]) == (1, 1)
    assert sorted(report.examples[Kind.COPY_UNREADABLE]) == sorted([job, letter.job_id])
    assert set(report.repaired) == {Kind.LEDGER_BEHIND}


def test_a_letter_without_a_copy_is_told(yard: ServerHarness) -> None:
    letter = died(yard.records)
    yard.age(letter.job_id)
    report = yard.look(repair=True)
    assert (report.drift[Kind.LETTER_MISSING], report.repaired[Kind.LETTER_MISSING]) == (1, 0)


def test_a_letter_of_which_redis_knows_nothing_is_told(yard: ServerHarness) -> None:
    yard.store(make_letter())
    assert yard.look(repair=True).drift == {Kind.LETTER_WITHOUT_RECORD: 1}


def test_a_letter_that_was_replayed_before_the_restore_is_marked(yard: ServerHarness) -> None:
    letter = yard.letter()
    yard.replay(letter)
    yard.relay.run_once()
    with yard.database.begin() as connection:
        connection.execute(update(LETTERS).values(status="pending", replayed_at=None))
    assert yard.look(repair=True).repaired[Kind.LETTER_BEHIND] == 1
    assert yard.status(letter) == "replayed"


def test_the_ledger_is_written_from_the_record_only_where_no_event_will_do_it(
    yard: ServerHarness,
) -> None:
    letter = died(yard.records)
    yard.age(letter.job_id)
    yard.no_events()
    yard.client.xadd(yard.records.keys.lifecycle, {"job": letter.job_id}, id="1-1")
    assert yard.look().drift[Kind.LEDGER_BEHIND] == 0, "an event may be on its way"
    yard.no_events()
    assert yard.look(repair=True).repaired[Kind.LEDGER_BEHIND] == 1
    assert yard.look().drift[Kind.LEDGER_BEHIND] == 0
    with yard.database.connect() as connection:
        row = connection.execute(select(LEDGER)).mappings().one()
    assert (row["state"], row["version"]) == ("dead_lettered", 3)
    assert str(row["letter_id"]) == letter.letter_id


def test_a_job_that_only_the_ledger_remembers_is_told(yard: ServerHarness) -> None:
    job = yard.admit()
    yard.age(job)
    yard.no_events()
    yard.look(repair=True)
    yard.client.delete(yard.records.keys.record(job))
    assert yard.look(repair=True).drift == {Kind.JOB_FORGOTTEN: 1}


# -- intents --------------------------------------------------------------------------------------


def open_again(yard: ServerHarness) -> None:
    with yard.database.begin() as connection:
        connection.execute(update(OUTBOX).values(done_at=None))


def test_an_intent_that_was_carried_out_before_the_restore_is_finished_not_repeated(
    yard: ServerHarness,
) -> None:
    letter = yard.letter()
    yard.replay(letter)
    yard.relay.run_once()
    open_again(yard)
    assert yard.look(repair=True).repaired[Kind.REPLAY_APPLIED] == 1
    assert not yard.relay.run_once()
    assert len(yard.queued()) == 1


def test_a_replay_that_redis_forgot_is_carried_out_again(yard: ServerHarness) -> None:
    letter = yard.letter()
    before = yard.client.dump(yard.records.keys.record(letter.job_id))
    yard.replay(letter)
    yard.relay.run_once()
    yard.client.restore(yard.records.keys.record(letter.job_id), 0, before, replace=True)
    yard.empty_queue()
    assert yard.look(repair=True).repaired[Kind.REPLAY_NOT_APPLIED] == 1
    assert yard.relay.run_once()
    assert len(yard.queued()) == 1


def test_an_open_intent_of_an_unknown_job_is_refused_only_after_a_restore(
    yard: ServerHarness,
) -> None:
    letter = yard.letter()
    yard.replay(letter)
    yard.client.delete(yard.records.keys.record(letter.job_id))
    assert yard.look(repair=True).drift[Kind.REPLAY_UNKNOWN] == 0
    assert yard.look(repair=True, restored=True).repaired[Kind.REPLAY_UNKNOWN] == 1
    assert yard.status(letter) == "pending"
    assert not yard.relay.run_once()


def test_where_too_many_messages_wait_single_ones_are_not_looked_for_and_it_says_so(
    yard: ServerHarness,
) -> None:
    job = yard.admit()
    yard.begin(job)
    yard.age(job, "lease_until")
    yard.client.lpush(list_key(yard.settings, "plan"), "{}")
    report = yard.look(most_messages=0)
    assert report.drift[Kind.STRANDED_RUNNING] == 0
    assert report.unseen == [
        "too many messages wait to search for single ones: run taskyard reconcile"
    ]


def test_one_that_cannot_be_mended_does_not_keep_the_others_from_it(
    yard: ServerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, fine = yard.admit(unsent()), yard.admit(unsent())
    for job in (lost, fine):
        yard.age(job)
    published = yard.publisher.publish

    def publish(message: Any, **options: Any) -> None:
        if options["job_id"] == lost:
            raise PublishFailed("the broker is away")
        published(message, **options)

    monkeypatch.setattr(yard.publisher, "publish", publish)
    report = yard.look(repair=True)
    assert (report.drift[Kind.UNPUBLISHED], report.repaired[Kind.UNPUBLISHED]) == (2, 1)
    (reported,) = report.unseen
    assert reported == f"unpublished {lost} was not repaired: the broker is away"


def test_a_look_without_time_says_that_it_is_incomplete(yard: ServerHarness) -> None:
    class Late:
        now_s = 0.0

        def monotonic_s(self) -> float:
            self.now_s += 100
            return self.now_s

    yard.admit()
    hurried = Reconciler(
        yard.settings,
        yard.database,
        yard.records,
        yard.publisher,
        clock=Late(),  # type: ignore[arg-type] # all it asks
    )
    assert not hurried.run(budget_s=1).complete


def test_the_relays_watch_only_reports_and_names_the_action(
    yard: ServerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["taskyard.reconcile.periodic_check"], "EVERY_S", 0.01)
    yard.client.zadd(f"{yard.settings.namespace}:delayed", {"half": 1})
    stop = threading.Event()
    reported: list[logging.LogRecord] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            reported.append(record)
            stop.set()

    ear = Ear()
    logging.getLogger("taskyard.reconcile.periodic_check").addHandler(ear)
    try:
        watch(yard.reconciler, stop)
    finally:
        logging.getLogger("taskyard.reconcile.periodic_check").removeHandler(ear)
    assert vars(reported[0])["action"] == "reconcile_report"
    assert vars(reported[0])["drift"] == {"delayed_without_message": 1}
    assert yard.client.zcard(f"{yard.settings.namespace}:delayed") == 1
