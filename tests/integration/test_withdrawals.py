"""Older request x newer request of one job: what is withdrawn, and what the audit log says.

The table is that of docs/states.md; no cell is left out.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import pytest
import redis
from sqlalchemy import Engine, func, select, text, update

from support.letters import died, make_delivery
from taskyard import outbox
from taskyard.access import Identity, Role
from taskyard.audit import rows_of
from taskyard.broker import RedisPublisher
from taskyard.control import letters, replay
from taskyard.control.forced_result import forced_result
from taskyard.control.live_verb import moved_to, request_verb
from taskyard.database.tables import OUTBOX
from taskyard.errors import PublishFailed, Refused
from taskyard.gate import Gate
from taskyard.jobs.states import Event, State
from taskyard.mirror.store_letters import store_letters
from taskyard.records import Records
from taskyard.relay import Relay
from taskyard.settings import Settings
from taskyard.wire import Letter

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

OPS = Identity("ops@example.com", via="token", role=Role.OPERATOR)
WHY = "Infrastructure recovered after 2-hour outage"

ON_LETTERS: Final = ("replay", "replay elsewhere", "cancel", "abort", "complete")
ON_JOBS: Final = ("cancel", "abort", "complete", "complete otherwise", "reroute", "reroute back")
EVENTS: Final = {
    "cancel": Event.CANCEL,
    "abort": Event.ABORT,
    "complete": Event.FORCE_COMPLETE,
    "complete otherwise": Event.FORCE_COMPLETE,
    "reroute": Event.REROUTE,
    "reroute back": Event.REROUTE,
}
ENDS: Final = {
    "cancel": State.CANCELLED,
    "abort": State.ABORTED,
    "complete": State.COMPLETED,
    "complete otherwise": State.COMPLETED,
    "reroute": State.REROUTED,
    "reroute back": State.REROUTED,
    "replay": State.ACCEPTED,
    "replay elsewhere": State.ACCEPTED,
}


class Harness:
    """Jobs and letters of one namespace, and a relay that works when it is told to."""

    def __init__(self, settings: Settings, database: Engine) -> None:
        self.settings, self.database = settings, database
        self.client = redis.Redis.from_url(settings.need_redis_url())
        self.records = Records(self.client, settings)
        self.publisher = RedisPublisher(settings, self.client)
        gate = Gate(settings.namespace, self.client)
        self.relay = Relay(settings, database, self.records, self.publisher, gate)

    def queued(self) -> str:
        job_id = str(uuid.uuid4())
        admitted = self.records.admit(
            job_id, job_type="plan_generation", queue="plan", priority=3, unique_for_s=0
        )
        self.records.confirm(job_id, admitted.epoch)
        return job_id

    def letter(self) -> Letter:
        letter = died(self.records)
        with self.database.begin() as connection:
            store_letters(connection, [make_delivery(letter)])
        return letter

    def ask(self, verb: str, target: Letter | str, **options: Any) -> uuid.UUID:
        facts = {"identity": OPS, "reason": WHY, **options}
        if verb.startswith("replay"):
            assert isinstance(target, Letter)
            queue = "locator" if verb == "replay elsewhere" else None
            facts = {"records": self.records, "queue": queue, **facts}
            return replay(self.database, target.letter_id, **facts).request_id
        job_id = target.job_id if isinstance(target, Letter) else target
        own: Any = None
        if verb.startswith("complete"):
            said = {"summary": f"{verb} by hand, by email", "result": verb}
            own = partial(forced_result, job_id, 1000, **said)
        elif verb.startswith("reroute"):
            own = partial(moved_to, "exec" if verb == "reroute" else "locator")
        facts = {"own": own, **facts}
        return request_verb(self.database, self.records, job_id, EVENTS[verb], **facts).request_id

    def rows(self, request: uuid.UUID) -> list[dict[str, Any]]:
        with self.database.connect() as connection:
            return rows_of(connection, request)

    def last(self, request: uuid.UUID) -> str:
        return str(self.rows(request)[-1]["outcome"])

    def status(self, letter: Letter) -> str:
        return str(letters.show(self.database, letter.letter_id)["status"])

    def is_open(self, request: uuid.UUID) -> bool:
        query = select(OUTBOX.c.done_at).where(OUTBOX.c.id == request)
        with self.database.connect() as connection:
            return connection.scalar(query) is None

    def relay_all(self) -> None:
        with self.database.begin() as connection:
            connection.execute(update(OUTBOX).values(not_before=None))
        while self.relay.run_once():
            pass


@pytest.fixture
def harness(settings: Settings, empty_database: Engine) -> Iterator[Harness]:
    made = Harness(settings, empty_database)
    yield made
    made.client.close()


def assert_withdrawn(harness: Harness, older: uuid.UUID, newer: uuid.UUID) -> None:
    """Answered in the transaction of the newer request, and both rows name each other."""
    first, last = harness.rows(older)
    assert first["outcome"] == "requested"
    assert last["outcome"].startswith(f"refused: withdrawn by request {newer}")
    assert last["detail"] == {"withdrawn_by": str(newer)}
    assert not harness.is_open(older)
    assert harness.rows(newer)[0]["detail"]["withdrew"] == [str(older)]


@pytest.mark.parametrize("newer", ON_LETTERS)
@pytest.mark.parametrize("older", ON_LETTERS)
def test_a_newer_verb_on_a_dead_letter_and_an_older_one(
    harness: Harness, older: str, newer: str
) -> None:
    letter = harness.letter()
    first = harness.ask(older, letter)
    if older == newer and older.startswith("replay"):
        with pytest.raises(Refused, match="was already replayed"):
            harness.ask(newer, letter)
        harness.relay_all()
        assert harness.last(first) == "applied"
        return
    second = harness.ask(newer, letter)
    if older == newer:
        assert harness.rows(second)[0]["detail"]["after"] == [str(first)]
    else:
        assert_withdrawn(harness, first, second)
        replayed = newer.startswith("replay")
        assert harness.status(letter) == ("replayed" if replayed else "pending")
    harness.relay_all()
    record = harness.records.read(letter.job_id)
    assert record.state is ENDS[newer]
    if older == newer:
        assert harness.last(first) == "applied"
        # The second finds the job ended; only a cancel of a cancelled job is no refusal.
        assert harness.last(second).startswith("applied" if newer == "cancel" else "refused")
    else:
        assert harness.last(second) == "applied"
    if newer.startswith("replay"):
        assert record.queue == ("locator" if newer == "replay elsewhere" else "plan")
        assert (record.generation, harness.status(letter)) == (1, "replayed")


@pytest.mark.parametrize("newer", ON_JOBS)
@pytest.mark.parametrize("older", ON_JOBS)
def test_a_newer_verb_on_a_live_job_and_an_older_one(
    harness: Harness, older: str, newer: str
) -> None:
    job_id = harness.queued()
    first = harness.ask(older, job_id)
    second = harness.ask(newer, job_id)
    if older == newer:
        assert harness.rows(second)[0]["detail"]["after"] == [str(first)]
    else:
        assert_withdrawn(harness, first, second)
    harness.relay_all()
    assert harness.records.read(job_id).state is ENDS[newer]
    if older != newer and not newer.startswith("reroute"):
        assert harness.last(second) == "applied"


def test_a_verb_on_a_job_does_not_wait_behind_a_replay_for_friday(harness: Harness) -> None:
    letter = harness.letter()
    scheduled = harness.ask("replay", letter)
    friday = func.clock_timestamp() + text("interval '3 days'")
    with harness.database.begin() as connection:
        connection.execute(update(OUTBOX).values(not_before=friday))
    assert not harness.relay.run_once()
    newer = harness.ask("cancel", letter)
    assert_withdrawn(harness, scheduled, newer)
    assert harness.relay.run_once()
    assert harness.last(newer) == "applied"
    assert harness.records.read(letter.job_id).state is State.CANCELLED
    assert harness.status(letter) == "cancelled"


def test_without_redis_only_what_was_never_due_is_withdrawn(harness: Harness) -> None:
    tried, scheduled = harness.letter(), harness.letter()
    requests = {each.letter_id: harness.ask("replay", each) for each in (tried, scheduled)}
    friday = func.clock_timestamp() + text("interval '3 days'")
    with harness.database.begin() as connection:
        mine = OUTBOX.c.id == requests[scheduled.letter_id]
        connection.execute(update(OUTBOX).where(mine).values(not_before=friday))
    with pytest.raises(Refused, match="was already replayed"):
        harness.ask("replay elsewhere", tried, records=None)
    newer = harness.ask("replay elsewhere", scheduled, records=None)
    assert_withdrawn(harness, requests[scheduled.letter_id], newer)
    assert harness.is_open(requests[tried.letter_id])


def test_a_replay_that_has_opened_its_generation_is_not_withdrawn(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = harness.letter()
    first = harness.ask("replay", letter)
    with monkeypatch.context() as patch:
        failed = lambda messages: [PublishFailed("away") for _ in messages]  # noqa: E731
        patch.setattr(harness.publisher, "publish_many", failed)
        assert harness.relay.run_once()
    assert not harness.relay.run_once(), "it waits for its next try"
    second = harness.ask("cancel", letter)
    assert harness.is_open(first)
    assert harness.rows(second)[0]["detail"]["after"] == [str(first)]
    # It was brought forward, so the newer one does not wait for its next try either.
    assert harness.relay.run_once()
    assert harness.relay.run_once()
    assert [harness.last(each) for each in (first, second)] == ["applied", "applied"]
    assert harness.records.read(letter.job_id).state is State.CANCELLED


def test_a_cancel_that_waits_for_its_attempt_is_not_withdrawn_and_does_not_hold_up_the_abort(
    harness: Harness,
) -> None:
    job_id = harness.queued()
    kind = "plan_generation"
    harness.records.attempts.begin(
        job_id, None, holder="h", worker="w@host", process="1", job_type=kind, queue="plan"
    )
    first = harness.ask("cancel", job_id)
    assert harness.relay.run_once()
    second = harness.ask("abort", job_id)
    assert harness.is_open(first)
    assert not set(harness.rows(second)[0]["detail"]) & {"withdrew", "after"}
    assert harness.relay.run_once()
    assert harness.records.read(job_id).state is State.ABORTED
    harness.relay_all()
    assert harness.last(first).startswith("refused")


def test_a_request_that_a_relay_carries_out_at_this_moment_is_left_to_the_order(
    harness: Harness,
) -> None:
    job_id = harness.queued()
    first = harness.ask("abort", job_id)
    with harness.database.connect() as relay:
        assert [each.id for each in outbox.claim(relay, bulk=False, most=9)] == [first]
        second = harness.ask("cancel", job_id)
        assert not harness.relay.run_once(), "the newer one waits for its turn"
    harness.relay_all()
    assert harness.last(first) == "applied"
    assert harness.last(second).startswith("refused")


def test_a_single_verb_brings_the_same_older_one_out_of_the_bulk(harness: Harness) -> None:
    job_id = harness.queued()
    first = harness.ask("cancel", job_id, bulk=True)
    second = harness.ask("cancel", job_id)
    with harness.database.connect() as connection:
        (claimed,) = outbox.claim(connection, bulk=False, most=9)
    assert claimed.id == first
    harness.relay_all()
    assert [harness.last(each) for each in (first, second)] == ["applied", "applied"]


def test_a_newer_request_that_is_refused_withdraws_nothing(harness: Harness) -> None:
    letter = harness.letter()
    first = harness.ask("replay", letter)
    with pytest.raises(Refused, match="Replay its dead letter into the other queue"):
        harness.ask("reroute", letter)
    assert harness.is_open(first)
    harness.relay_all()
    assert harness.last(first) == "applied"
