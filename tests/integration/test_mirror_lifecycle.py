"""The lifecycle stream into ledger and history, and the outcome of replays."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, func, select, update

from support.letters import DIED_US, die_again, died, make_delivery, make_letter
from taskyard import ledger
from taskyard.clock import SYSTEM_CLOCK
from taskyard.database.tables import LETTERS, REJECTS
from taskyard.errors import NotFound
from taskyard.mirror.batch_feeds import EventFeed
from taskyard.mirror.lifecycle_stream import GROUP, LifecycleStream
from taskyard.mirror.store_letters import store_letters
from taskyard.records import Records
from taskyard.settings import Settings
from taskyard.wire import Stamp

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

pytestmark = pytest.mark.usefixtures("empty_database")

EPOCH = DIED_US - 5


class Stream:
    """The lifecycle stream of one test, written as the records' scripts write it."""

    def __init__(self, settings: Settings, database: Engine) -> None:
        self.client = redis.Redis.from_url(settings.need_redis_url())
        self.namespace = settings.namespace
        self.key = f"{settings.namespace}:lifecycle"
        self.database = database

    def add(self, job: str, version: int, event: str, state: str, **fields: Any) -> None:
        known: dict[Any, Any] = {
            "job": job,
            "epoch": EPOCH,
            "version": version,
            "event": event,
            "state": state,
        }
        self.client.xadd(self.key, {**known, "at": DIED_US + version, "generation": 0, **fields})

    def feed(self, consumer: str = "one", claim_idle_ms: int = 60_000) -> EventFeed:
        stream = LifecycleStream(self.client, self.namespace, consumer, claim_idle_ms)
        return EventFeed(self.database, stream, SYSTEM_CLOCK)

    def mirror(self) -> int:
        feed = self.feed()
        feed.step(0)  # creates the group where there is none
        return sum(iter(lambda: feed.step(0), 0))


@pytest.fixture
def stream(settings: Settings, database: Engine) -> Iterator[Stream]:
    made = Stream(settings, database)
    yield made
    made.client.close()


def job(database: Engine, job_id: str = "j") -> dict[str, Any]:
    with database.connect() as connection:
        return ledger.job(connection, job_id)


def history(database: Engine, job_id: str = "j") -> list[dict[str, Any]]:
    with database.connect() as connection:
        return ledger.history(connection, job_id)


def outcomes(database: Engine) -> dict[int, str | None]:
    with database.connect() as connection:
        query = select(LETTERS.c.generation, LETTERS.c.replay_outcome)
        return {row.generation: row.replay_outcome for row in connection.execute(query)}


def test_a_jobs_life_is_told_by_ledger_and_history(stream: Stream, database: Engine) -> None:
    stream.add("j", 1, "admit", "accepted", type="plan_generation", queue="plan", priority=3)
    stream.add("j", 2, "begin", "running", worker="w@1", attempt=1, token=7)
    stream.add("j", 3, "complete", "completed")
    stream.mirror()
    present = job(database)
    assert (present["state"], present["version"], present["attempts"]) == ("completed", 3, 1)
    assert (present["job_type"], present["worker"]) == ("plan_generation", "w@1")
    assert present["admitted_at"] < present["started_at"] < present["ended_at"]
    assert [event["event"] for event in history(database)] == ["admit", "begin", "complete"]
    assert history(database)[1]["detail"]["token"] == 7


def test_what_is_stored_leaves_the_stream_and_the_group(stream: Stream) -> None:
    stream.add("j", 1, "admit", "accepted")
    stream.mirror()
    assert stream.client.xlen(stream.key) == 0
    assert stream.client.xpending(stream.key, GROUP)["pending"] == 0


def test_events_in_the_wrong_order_and_twice_end_in_the_same_ledger(
    stream: Stream, database: Engine
) -> None:
    stream.add("j", 3, "complete", "completed")
    stream.mirror()
    for _ in range(2):
        stream.add("j", 2, "begin", "running", worker="w@1")
        stream.add("j", 1, "admit", "accepted", type="plan_generation")
        stream.mirror()
    stream.add("j", 4, "complete", "completed")
    stream.mirror()
    present = job(database)
    assert (present["state"], present["version"]) == ("completed", 4)
    assert (present["job_type"], present["worker"]) == ("plan_generation", "w@1")
    assert present["admitted_at"] < present["started_at"] < present["ended_at"]
    assert len(history(database)) == 4


def test_a_replayed_job_is_no_longer_ended(stream: Stream, database: Engine) -> None:
    letter = str(uuid.uuid4())
    stream.add("j", 4, "fail", "dead_lettered", code="timeout", letter=letter)
    stream.mirror()
    assert job(database)["ended_at"] is not None
    assert str(job(database)["letter_id"]) == letter
    stream.add("j", 5, "replay", "accepted", generation=1)
    stream.mirror()
    assert job(database)["ended_at"] is None
    assert job(database)["generation"] == 1


def test_each_life_of_an_id_has_its_own_row(stream: Stream, database: Engine) -> None:
    stream.add("j", 1, "admit", "accepted")
    stream.add("j", 1, "admit", "accepted", epoch=EPOCH + 100)
    stream.mirror()
    assert job(database)["epoch"] == EPOCH + 100
    assert len(history(database)) == 2


def test_a_job_that_the_ledger_does_not_know_is_not_found(database: Engine) -> None:
    with database.connect() as connection, pytest.raises(NotFound, match="the ledger has no job"):
        ledger.job(connection, "nobody")


def test_entries_that_cannot_be_read_are_kept_and_stop_nothing(
    stream: Stream, database: Engine
) -> None:
    stream.client.xadd(stream.key, {"job": "x"})
    stream.client.xadd(stream.key, {b"\xff": b"\x00"})
    stream.add("j", 1, "admit", "nonsense")
    stream.add("j", 1, "admit", "accepted", at="soon")
    stream.add("j", 2**70, "admit", "accepted")
    stream.add("j", 1, "admit", "accepted", error="a\x00b")
    stream.mirror()
    assert history(database)[0]["detail"]["error"] == "a\N{REPLACEMENT CHARACTER}b"
    with database.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(REJECTS)) == 5
    assert stream.client.xlen(stream.key) == 0


def test_what_a_dead_mirror_left_is_taken_over_and_stored_once(
    stream: Stream, database: Engine
) -> None:
    stream.feed("dead").step(0)
    stream.add("j", 1, "admit", "accepted")
    dead = LifecycleStream(stream.client, stream.namespace, "dead")
    assert len(dead.take(10, 1)) == 1
    living = stream.feed("living", claim_idle_ms=0)
    assert living.step(0) == 1
    assert len(history(database)) == 1
    assert stream.client.xlen(stream.key) == 0


def test_what_was_lost_on_the_way_to_a_living_mirror_is_taken_again_at_once(
    stream: Stream, database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = stream.feed()
    feed.step(0)
    stream.add("j", 1, "admit", "accepted")
    arrived = stream.client.xreadgroup

    def lose(*arguments: Any, **options: Any) -> None:
        arrived(*arguments, **options)
        raise redis.ConnectionError("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(stream.client, "xreadgroup", lose)
        with pytest.raises(redis.ConnectionError):
            feed.step(0)
    stream.add("k", 1, "admit", "accepted")
    assert [feed.step(0), feed.step(0), feed.step(0)] == [1, 1, 0]
    assert len(history(database)) == 1
    assert stream.client.xlen(stream.key) == 0


def test_a_crash_between_commit_and_acknowledgement_doubles_nothing(
    stream: Stream, database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.feed().step(0)
    stream.add("j", 1, "admit", "accepted")
    dying = stream.feed("dying")
    with monkeypatch.context() as patch:
        patch.setattr(LifecycleStream, "settle", _die)
        with pytest.raises(KeyboardInterrupt):
            dying.step(0)
    assert len(history(database)) == 1
    assert stream.feed("next", claim_idle_ms=0).step(0) == 1
    assert len(history(database)) == 1
    assert stream.client.xlen(stream.key) == 0


def _die(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_flushed_redis_gets_its_group_back(stream: Stream, database: Engine) -> None:
    feed = stream.feed()
    feed.step(0)
    stream.client.delete(stream.key)
    feed.step(0)
    stream.add("j", 1, "admit", "accepted")
    assert feed.step(0) == 1


# -- the outcome of replays ---------------------------------------------------------------------


def keep_replayed(database: Engine, *generations: int) -> None:
    letters = [make_letter("j", generation=n, epoch=EPOCH) for n in generations]
    with database.begin() as connection:
        store_letters(connection, [make_delivery(letter) for letter in letters])
        connection.execute(update(LETTERS).values(status="replayed", replayed_at=func.now()))


@pytest.mark.parametrize(
    ("event", "state", "outcome"),
    [
        ("complete", "completed", "success"),
        ("fail", "dead_lettered", "failed"),
        ("delete", "failed", "failed"),
        ("cancel", "cancelled", None),
        ("begin", "running", None),
    ],
)
def test_the_end_of_a_replay_is_the_letters_outcome(
    stream: Stream, database: Engine, event: str, state: str, outcome: str | None
) -> None:
    keep_replayed(database, 0)
    stream.add("j", 9, event, state, generation=1)
    stream.mirror()
    assert outcomes(database) == {0: outcome}


def test_each_replay_of_a_job_has_its_own_outcome(stream: Stream, database: Engine) -> None:
    keep_replayed(database, 0, 1)
    stream.add("j", 9, "fail", "dead_lettered", generation=1)
    stream.add("j", 12, "complete", "completed", generation=2)
    stream.mirror()
    assert outcomes(database) == {0: "failed", 1: "success"}


def test_a_redirect_between_replay_and_end_does_not_hide_the_outcome(
    stream: Stream, database: Engine
) -> None:
    keep_replayed(database, 0)
    stream.add("j", 9, "complete", "completed", generation=3)
    stream.mirror()
    assert outcomes(database) == {0: "success"}


def test_the_end_of_another_life_or_of_the_letters_own_generation_is_no_outcome(
    stream: Stream, database: Engine
) -> None:
    keep_replayed(database, 1)
    stream.add("j", 9, "fail", "dead_lettered", generation=1)
    stream.add("j", 9, "complete", "completed", generation=2, epoch=EPOCH + 100)
    stream.mirror()
    assert outcomes(database) == {1: None}


def test_the_stream_of_real_records_is_understood(
    settings: Settings, stream: Stream, database: Engine
) -> None:
    records = Records(stream.client, settings)
    letter = died(records, "real")
    replayed = records.replay(
        job_id="real",
        epoch=letter.epoch,
        generation=0,
        request_id="r",
        job_type="plan_generation",
        queue="plan",
        priority=3,
    )
    last = die_again(records, "real", Stamp(letter.epoch, replayed.generation, replayed.seq))
    stream.mirror()
    events = [event["event"] for event in history(database, "real")]
    assert events == ["admit", "begin", "fail", "replay", "begin", "fail"]
    present = job(database, "real")
    assert (present["state"], present["generation"]) == ("dead_lettered", 1)
    assert present["category"] == "retry_exhausted"
    assert present["worker"] == "w"
    assert present["attempts"] == 1
    assert str(present["letter_id"]) == last.letter_id
