"""Cancel: permitted, reasoned and audited, then carried out once by the relay."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from redis.exceptions import ConnectionError as RedisDown
from sqlalchemy import Engine, event, func, select, update

from support.letters import died, make_delivery
from support.waiting import eventually
from taskyard import outbox
from taskyard.access import Identity, Role
from taskyard.audit import rows_of
from taskyard.broker import RedisPublisher
from taskyard.control import Control, VerbOutcome, VerbRequested, replay, tokens
from taskyard.control.live_verb import answers, request_verb
from taskyard.control.rights import Rights
from taskyard.database.tables import AUDIT, LETTERS, OUTBOX
from taskyard.errors import InvalidPayload, InvalidReason, NotPermitted, Refused, TokenRefused
from taskyard.gate import Gate
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.jobs.states import TERMINAL, Event, State
from taskyard.ledger import Entry, write
from taskyard.mirror.lifecycle_stream import StreamEntry
from taskyard.mirror.store_letters import store_letters
from taskyard.mirror.store_lifecycle import store_events
from taskyard.records import Ended, Records, Run, Superseded, VerbTarget
from taskyard.records.script_replies import Finished
from taskyard.relay import Relay
from taskyard.settings import Settings
from taskyard.wire import Stamp, letter_id

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

OPS = Identity("ops@example.com", via="token", role=Role.OPERATOR)
WHY = "User cancellation via support ticket 12345"


class Crash(BaseException):
    """The process dies here."""


class Harness:
    """Jobs in their records, an operator and a relay; the test is the worker."""

    def __init__(self, settings: Settings, database: Engine) -> None:
        self.settings, self.database = settings, database
        self.client = redis.Redis.from_url(settings.need_redis_url())
        self.records = Records(self.client, settings, domain_of=lambda _: "billing")
        self.publisher = RedisPublisher(settings, self.client)
        gate = Gate(settings.namespace, self.client)
        self.relay = Relay(settings, database, self.records, self.publisher, gate)

    def queued(self) -> tuple[str, Stamp]:
        job_id = str(uuid.uuid4())
        made = self.records.admit(job_id, job_type="t", queue="exec", priority=3, unique_for_s=0)
        return job_id, Stamp(made.epoch)

    def begin(self, job_id: str, stamp: Stamp | None) -> Any:
        return self.records.attempts.begin(
            job_id, stamp, holder="h", worker="w@host", process="1", job_type="t", queue="exec"
        )

    def finish(
        self, job_id: str, run: Run, decision: Decision = Decision.COMPLETED, **more: Any
    ) -> Finished | Superseded:
        place: dict[str, Any] = {"epoch": run.epoch, "generation": run.generation, "seq": run.seq}
        facts = {"token": run.token, "result": b"{}", "cause": b"{}", "message": "broken", **more}
        return self.records.attempts.finish(job_id, decision, **place, **facts)

    def running(self) -> tuple[str, Run]:
        job_id, stamp = self.queued()
        return job_id, self.begin(job_id, stamp)

    def cancel(self, job_id: str, **options: Any) -> VerbRequested:
        facts = {"identity": OPS, "reason": WHY, **options}
        return request_verb(self.database, self.records, job_id, Event.CANCEL, **facts)

    def relay_all(self) -> None:
        while self.relay.run_once():
            pass

    def look_again(self) -> None:
        """The relay's next try is due."""
        with self.database.begin() as connection:
            connection.execute(update(OUTBOX).values(not_before=None))
        self.relay_all()

    def outcome(self, requested: VerbRequested) -> VerbOutcome:
        return answers(self.database, [requested], wait_s=0)[0]

    def audited(self, requested: VerbRequested) -> list[str]:
        with self.database.connect() as connection:
            return [row["outcome"] for row in rows_of(connection, requested.request_id)]

    def last_audit(self) -> dict[str, Any]:
        with self.database.connect() as connection:
            query = select(AUDIT).order_by(AUDIT.c.id.desc()).limit(1)
            return dict(connection.execute(query).mappings().one())

    def state(self, job_id: str) -> State:
        return self.records.read(job_id).state

    def store(self, letter: Any) -> None:
        with self.database.begin() as connection:
            store_letters(connection, [make_delivery(letter)])

    def mirror_events(self) -> None:
        """Store what the mirror would find in the lifecycle stream."""
        entries: Any = self.client.xrange(f"{self.records.settings.namespace}:lifecycle")
        with self.database.begin() as connection:
            store_events(connection, [StreamEntry(name.decode(), each) for name, each in entries])

    def status(self, letter: Any) -> str | None:
        with self.database.connect() as connection:
            query = select(LETTERS.c.status).where(LETTERS.c.id == uuid.UUID(letter.letter_id))
            return connection.scalar(query)

    def open_intents(self) -> int:
        with self.database.connect() as connection:
            query = select(func.count()).select_from(OUTBOX).where(OUTBOX.c.done_at.is_(None))
            return int(connection.scalar(query) or 0)


@pytest.fixture
def harness(settings: Settings, empty_database: Engine) -> Iterator[Harness]:
    made = Harness(settings, empty_database)
    yield made
    made.client.close()


# -- what a cancel does ---------------------------------------------------------------------------


def test_a_queued_job_is_cancelled_audited_and_its_message_does_not_run(harness: Harness) -> None:
    job_id, stamp = harness.queued()
    asked = harness.cancel(job_id, on_behalf_of="customer@example.com")
    assert harness.outcome(asked).outcome == "pending"
    harness.relay_all()
    assert harness.audited(asked) == ["requested", "applied"]
    assert harness.outcome(asked) == VerbOutcome(asked.request_id, job_id, "applied")
    with harness.database.connect() as connection:
        first, last = rows_of(connection, asked.request_id)
    assert (first["action_type"], first["target_request_id"]) == ("cancel_request", job_id)
    assert (first["reason"], first["on_behalf_of"]) == (WHY, "customer@example.com")
    assert first["detail"]["state"] == "accepted"
    assert last["detail"]["state"] == "cancelled"
    assert harness.records.read(job_id).fields["verb"] == str(asked.request_id)
    assert harness.begin(job_id, stamp) == Ended(State.CANCELLED)


def test_celery_clients_read_a_cancelled_job_as_revoked(harness: Harness) -> None:
    job_id, _ = harness.queued()
    with harness.client.pubsub() as waiting:  # type: ignore[no-untyped-call]  # redis-py has no type
        waiting.subscribe(harness.records.keys.result(job_id))
        assert waiting.get_message(timeout=5) is not None
        harness.cancel(job_id)
        harness.relay_all()
        published = eventually(lambda: waiting.get_message(timeout=1), "the published result")
    meta = json.loads(published["data"])
    assert (meta["status"], meta["task_id"]) == ("REVOKED", job_id)
    assert meta["result"]["exc_type"] == "JobFailed"
    assert json.loads(harness.records.result(job_id) or b"") == meta


def test_a_running_job_shows_the_request_and_is_cancelled_when_its_attempt_ends(
    harness: Harness,
) -> None:
    job_id, run = harness.running()
    asked = harness.cancel(job_id)
    harness.relay_all()
    outcome = harness.outcome(asked)
    assert outcome.outcome == "pending"
    assert outcome.why.startswith(f"worker w@host runs job {job_id} and was asked to stop")
    record = harness.records.read(job_id)
    assert (record.state, record.fields["cancel"]) == (State.RUNNING, str(asked.request_id))
    assert harness.records.attempts.renew(job_id, run.token) == (True, str(asked.request_id))
    assert isinstance(harness.finish(job_id, run, stopped=True), Superseded)
    harness.look_again()
    assert harness.outcome(asked).outcome == "applied"
    assert (harness.state(job_id), harness.audited(asked)) == (
        State.CANCELLED,
        ["requested", "applied"],
    )


def test_a_result_that_came_before_the_handler_saw_the_request_stands(harness: Harness) -> None:
    job_id, run = harness.running()
    asked = harness.cancel(job_id)
    harness.relay_all()
    assert isinstance(harness.finish(job_id, run), Finished)
    harness.look_again()
    outcome = harness.outcome(asked)
    assert outcome.outcome == "refused"
    assert outcome.why.startswith(f"job {job_id} is completed, so it cannot be cancelled")
    with pytest.raises(Refused, match="is completed"):
        outcome.raise_refusal()
    assert harness.state(job_id) is State.COMPLETED


def test_a_worker_that_died_with_the_message_does_not_keep_the_request_open(
    harness: Harness,
) -> None:
    job_id, _ = harness.running()
    asked = harness.cancel(job_id)
    harness.relay_all()
    harness.client.hset(harness.records.keys.record(job_id), "lease_until", 1)
    harness.look_again()
    assert (harness.outcome(asked).outcome, harness.state(job_id)) == ("applied", State.CANCELLED)


def test_a_request_that_a_failover_forgot_is_made_again(harness: Harness) -> None:
    job_id, run = harness.running()
    asked = harness.cancel(job_id)
    harness.relay_all()
    harness.client.hdel(harness.records.keys.record(job_id), "cancel", "cancel_at")
    harness.look_again()
    assert harness.records.attempts.renew(job_id, run.token) == (True, str(asked.request_id))


def test_a_request_that_waits_for_an_attempt_does_not_hold_up_the_next_one(
    harness: Harness,
) -> None:
    job_id, run = harness.running()
    first = harness.cancel(job_id)
    harness.relay_all()
    second = harness.cancel(job_id, reason="The same user asked again by telephone")
    harness.relay_all()
    assert harness.outcome(second).why.startswith("worker w@host runs")
    harness.finish(job_id, run, Decision.DEAD_LETTERED)
    harness.look_again()
    assert [harness.outcome(one).outcome for one in (first, second)] == ["applied"] * 2


def test_a_dead_lettered_job_is_cancelled_and_its_letter_is_closed(harness: Harness) -> None:
    letter = died(harness.records)
    harness.store(letter)
    asked = harness.cancel(letter.job_id)
    harness.relay_all()
    assert (harness.state(letter.job_id), harness.status(letter)) == (State.CANCELLED, "cancelled")
    with harness.database.connect() as connection:
        rows = rows_of(connection, asked.request_id)
    assert [row["dead_letter_id"] for row in rows] == [uuid.UUID(letter.letter_id)] * 2


def test_a_letter_that_the_mirror_has_not_stored_yet_is_closed_when_it_comes(
    harness: Harness,
) -> None:
    letter = died(harness.records)
    asked = harness.cancel(letter.job_id)
    harness.relay_all()
    assert harness.outcome(asked).why.endswith("If none runs: taskyard mirror")
    assert harness.state(letter.job_id) is State.CANCELLED
    harness.store(letter)
    harness.look_again()
    assert (harness.outcome(asked).outcome, harness.status(letter)) == ("applied", "cancelled")


def test_a_letter_that_the_mirror_stores_between_two_statements_does_not_stay_open(
    harness: Harness,
) -> None:
    letter = died(harness.records)
    asked = harness.cancel(letter.job_id)

    def store_after(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "UPDATE dead_letter_queue" in statement or "FROM dead_letter_queue" in statement:
            event.remove(harness.database, "after_cursor_execute", store_after)
            harness.store(letter)
            stored.append(statement)

    stored: list[str] = []
    event.listen(harness.database, "after_cursor_execute", store_after)
    harness.relay_all()
    assert len(stored) == 1
    harness.look_again()
    assert (harness.outcome(asked).outcome, harness.status(letter)) == ("applied", "cancelled")


def test_a_letter_that_never_comes_does_not_keep_the_request_open(harness: Harness) -> None:
    letter = died(harness.records)
    asked = harness.cancel(letter.job_id)
    with harness.database.begin() as connection:
        connection.execute(update(OUTBOX).values(attempts=12))
    harness.relay_all()
    assert harness.outcome(asked).outcome == "applied"
    assert harness.last_audit()["detail"]["letter"] == "not in Postgres"


def test_while_a_letter_is_waited_for_later_requests_for_its_job_are_answered(
    harness: Harness,
) -> None:
    letter = died(harness.records)
    first = harness.cancel(letter.job_id)
    # Without Redis the second cannot know that the first has not changed the record.
    second = request_verb(
        harness.database, Silent(), letter.job_id, Event.ABORT, identity=OPS, reason=WHY
    )
    harness.relay_all()
    assert harness.outcome(first).outcome == "pending"
    assert "is cancelled, so it cannot be aborted" in harness.outcome(second).why
    harness.store(letter)
    harness.look_again()
    assert harness.outcome(first).outcome == "applied"


@pytest.mark.parametrize("mirrored", ["before the refusal", "after the refusal"])
def test_the_letter_of_a_replay_that_is_refused_since_its_job_was_cancelled_is_closed(
    harness: Harness, mirrored: str
) -> None:
    letter = died(harness.records)
    harness.store(letter)
    harness.mirror_events()
    cancelled = harness.cancel(letter.job_id)
    replayed = replay(harness.database, letter.letter_id, identity=OPS, reason=WHY)
    assert harness.status(letter) == "replayed"
    assert harness.relay.run_once()
    assert harness.outcome(cancelled).outcome == "applied"
    if mirrored == "before the refusal":
        harness.mirror_events()
    assert harness.relay.run_once()
    with harness.database.connect() as connection:
        assert rows_of(connection, replayed.request_id)[-1]["outcome"].startswith("refused: ")
    if mirrored == "after the refusal":
        assert harness.status(letter) == "pending"
        harness.mirror_events()
    assert harness.status(letter) == "cancelled"


def test_a_job_without_a_record_is_cancelled_before_its_message_comes(harness: Harness) -> None:
    job_id = str(uuid.uuid4())
    asked = harness.cancel(job_id)
    harness.relay_all()
    assert harness.outcome(asked).outcome == "applied"
    assert harness.begin(job_id, None) == Ended(State.CANCELLED)


def test_a_job_that_redis_forgot_is_cancelled_in_the_life_that_the_ledger_knows(
    harness: Harness,
) -> None:
    job_id, stamp = harness.queued()
    fields = {b"event": b"admit", b"state": b"accepted", b"version": b"1", b"at": b"1"}
    fields |= {b"job": job_id.encode(), b"epoch": str(stamp.epoch).encode()}
    fields |= {b"generation": b"0", b"seq": b"0", b"queue": b"exec", b"type": b"t"}
    with harness.database.begin() as connection:
        write(connection, [Entry.parse(fields)])
    harness.client.flushall()
    asked = harness.cancel(job_id)
    harness.relay_all()
    assert harness.outcome(asked).outcome == "applied"
    assert harness.records.read(job_id).epoch == stamp.epoch
    assert harness.begin(job_id, stamp) == Ended(State.CANCELLED)


def test_cancelling_a_cancelled_job_is_applied_and_changes_nothing(harness: Harness) -> None:
    job_id, _ = harness.queued()
    harness.cancel(job_id)
    harness.relay_all()
    before = harness.records.read(job_id)
    asked = harness.cancel(job_id)
    harness.relay_all()
    assert harness.outcome(asked).outcome == "applied"
    assert harness.records.read(job_id) == before


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(TERMINAL - {State.CANCELLED}))
def test_a_job_that_has_ended_is_protected(harness: Harness, state: State) -> None:
    job_id, _ = harness.queued()
    harness.client.hset(harness.records.keys.record(job_id), "state", state)
    before = harness.records.read(job_id)
    with pytest.raises(Refused, match=f"is {state}, so it cannot be cancelled. A job that"):
        harness.cancel(job_id)
    assert harness.last_audit()["outcome"].startswith("refused: job")
    assert (harness.records.read(job_id), harness.open_intents()) == (before, 0)


def test_a_job_that_ended_since_the_request_is_refused_by_the_relay(harness: Harness) -> None:
    job_id, stamp = harness.queued()
    asked = harness.cancel(job_id)
    harness.finish(job_id, harness.begin(job_id, stamp))
    harness.relay_all()
    assert harness.outcome(asked).outcome == "refused"
    assert harness.state(job_id) is State.COMPLETED


def test_another_life_of_the_same_id_is_not_cancelled(harness: Harness) -> None:
    job_id, stamp = harness.queued()
    asked = harness.cancel(job_id)
    harness.finish(job_id, harness.begin(job_id, stamp))
    harness.records.admit(job_id, job_type="t", queue="exec", priority=3, unique_for_s=0)
    harness.relay_all()
    assert "it was enqueued again" in harness.outcome(asked).why
    assert harness.state(job_id) is State.ACCEPTED


def test_a_job_that_was_replayed_since_the_request_is_not_cancelled(harness: Harness) -> None:
    letter = died(harness.records)
    asked = harness.cancel(letter.job_id)
    harness.records.replay(
        job_id=letter.job_id,
        epoch=letter.epoch,
        generation=letter.generation,
        request_id="r",
        job_type="t",
        queue="exec",
        priority=3,
    )
    harness.relay_all()
    assert "it was replayed or rerouted meanwhile" in harness.outcome(asked).why
    assert harness.state(letter.job_id) is State.ACCEPTED


def test_a_cancel_on_a_version_is_refused_once_the_job_has_changed(harness: Harness) -> None:
    job_id, stamp = harness.queued()
    version = harness.records.read(job_id).number("version")
    asked = harness.cancel(job_id, if_version=version)
    harness.begin(job_id, stamp)
    with pytest.raises(Refused, match="it has changed meanwhile, and is running now"):
        harness.cancel(job_id, if_version=version)
    harness.relay_all()
    assert harness.outcome(asked).outcome == "refused"
    assert harness.state(job_id) is State.RUNNING


def test_a_viewer_is_denied(harness: Harness) -> None:
    job_id, _ = harness.queued()
    viewer = Identity("v@example.com", via="token", role=Role.VIEWER)
    with pytest.raises(NotPermitted):
        harness.cancel(job_id, identity=viewer)
    assert harness.last_audit()["outcome"] == "denied"
    assert (harness.state(job_id), harness.open_intents()) == (State.ACCEPTED, 0)


@pytest.mark.parametrize("bounds", [{"queues": frozenset({"plan"})}, {"domains": frozenset({"x"})}])
def test_a_bound_identity_cancels_nothing_outside_of_its_bounds(
    harness: Harness, bounds: dict[str, Any]
) -> None:
    bound = Identity("b@example.com", via="token", role=Role.OPERATOR, **bounds)
    job_id, _ = harness.queued()
    for one in (job_id, str(uuid.uuid4())):
        with pytest.raises(NotPermitted):
            harness.cancel(one, identity=bound)
        assert harness.last_audit()["outcome"] == "denied"


def test_a_bound_identity_cancels_within_its_bounds(harness: Harness) -> None:
    own: dict[str, Any] = {"queues": frozenset({"exec"}), "domains": frozenset({"billing"})}
    bound = Identity("b@example.com", via="token", role=Role.OPERATOR, **own)
    job_id, stamp = harness.queued()
    harness.begin(job_id, stamp)
    harness.cancel(job_id, identity=bound)
    assert harness.last_audit()["outcome"] == "requested"


def test_the_domain_of_an_earlier_life_gives_no_right_to_a_job_that_has_none(
    harness: Harness,
) -> None:
    job_id, stamp = harness.queued()
    fields = {b"event": b"admit", b"state": b"accepted", b"version": b"1", b"at": b"1"}
    fields |= {b"job": job_id.encode(), b"epoch": str(stamp.epoch).encode(), b"type": b"t"}
    fields |= {b"generation": b"0", b"seq": b"0", b"queue": b"exec", b"domain": b"billing"}
    with harness.database.begin() as connection:
        write(connection, [Entry.parse(fields)])
    harness.finish(job_id, harness.begin(job_id, stamp))
    # The ledger does not know yet that another type has the id now.
    Records(harness.client, harness.settings).admit(
        job_id, job_type="u", queue="exec", priority=3, unique_for_s=0
    )
    bound = Identity(
        "b@example.com", via="token", role=Role.OPERATOR, domains=frozenset({"billing"})
    )
    with pytest.raises(NotPermitted, match="has no domain"):
        harness.cancel(job_id, identity=bound)


@pytest.mark.parametrize("reason", [None, "", "fix it"])
def test_a_cancel_without_a_reason_is_refused(harness: Harness, reason: str | None) -> None:
    job_id, _ = harness.queued()
    with pytest.raises(InvalidReason):
        harness.cancel(job_id, reason=reason)
    assert harness.open_intents() == 0


@pytest.mark.parametrize("job_id", ["", "x" * 10_000, "a\x00b", "a\x1b[2Jb"])
def test_an_impossible_id_is_refused_and_audited(harness: Harness, job_id: str) -> None:
    with pytest.raises(InvalidPayload, match="a job's id has 1 to"):
        harness.cancel(job_id)
    assert harness.last_audit()["outcome"].startswith("refused: a job's id has")


# -- outages and crashes --------------------------------------------------------------------------


class Silent:
    """Records whose Redis does not answer."""

    def read(self, job_id: str) -> Any:
        raise RedisDown(f"no answer about {job_id}")


def test_without_redis_the_request_is_kept_for_the_relay(harness: Harness) -> None:
    job_id, stamp = harness.queued()
    asked = request_verb(harness.database, Silent(), job_id, Event.CANCEL, identity=OPS, reason=WHY)
    assert asked.seen.source == "nowhere"
    harness.relay_all()
    assert harness.begin(job_id, stamp) == Ended(State.CANCELLED)


def test_a_relay_whose_redis_does_not_answer_says_so_and_tries_again(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, _ = harness.queued()
    asked = harness.cancel(job_id)

    def silent(*_: object) -> None:
        raise RedisDown("Redis is loading")

    with monkeypatch.context() as patched:
        patched.setattr(harness.records.verbs, "many", silent)
        harness.relay_all()
    assert harness.outcome(asked).why == "the record could not be reached: Redis is loading"
    harness.look_again()
    assert harness.outcome(asked).outcome == "applied"


def die_after_the_script(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    many = harness.records.verbs.many

    def cancel_and_die(calls: Any) -> None:
        many(calls)
        raise Crash

    monkeypatch.setattr(harness.records.verbs, "many", cancel_and_die)


def die_before_the_commit(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def finish_and_die(*_: object) -> None:
        raise Crash

    monkeypatch.setattr(outbox, "finish_many", finish_and_die)


@pytest.mark.parametrize("die", [die_after_the_script, die_before_the_commit])
def test_a_relay_that_dies_leaves_a_request_that_the_next_one_answers(
    harness: Harness,
    monkeypatch: pytest.MonkeyPatch,
    die: Callable[[Harness, pytest.MonkeyPatch], None],
) -> None:
    letter = died(harness.records)
    harness.store(letter)
    asked = harness.cancel(letter.job_id)
    with monkeypatch.context() as patched:
        die(harness, patched)
        with pytest.raises(Crash):
            harness.relay.run_once()
    assert harness.audited(asked) == ["requested"]
    version = harness.records.read(letter.job_id).number("version")
    harness.relay_all()
    assert harness.audited(asked) == ["requested", "applied"]
    assert harness.records.read(letter.job_id).number("version") == version
    assert harness.status(letter) == "cancelled"


def test_of_threads_that_cancel_and_workers_that_finish_one_wins_and_each_hears_the_truth(
    harness: Harness,
) -> None:
    jobs = [harness.running() for _ in range(16)]
    barrier = threading.Barrier(32)

    def cancel(job_id: str) -> VerbRequested | Refused:
        barrier.wait()
        try:
            return harness.cancel(job_id)
        except Refused as refused:
            return refused

    def finish(job_id: str, run: Run) -> Finished | Superseded:
        barrier.wait()
        return harness.finish(job_id, run)

    stop = threading.Event()
    with ThreadPoolExecutor(33) as pool:
        relaying = pool.submit(harness.relay.run, stop)
        finished = [pool.submit(finish, *job) for job in jobs]
        cancelled = [pool.submit(cancel, job_id) for job_id, _ in jobs]
        pairs = [
            (one.result(), other.result()) for one, other in zip(finished, cancelled, strict=True)
        ]
        eventually(lambda: harness.open_intents() == 0, "every request has its answer")
        stop.set()
        relaying.result()
    for (job_id, _), (done, asked) in zip(jobs, pairs, strict=True):
        # Every handler returned without having seen a request: its work is done.
        assert isinstance(done, Finished)
        assert harness.state(job_id) is State.COMPLETED
        if isinstance(asked, VerbRequested):
            assert harness.outcome(asked).outcome == "refused"


def test_of_threads_that_cancel_and_attempts_that_fail_each_hears_the_truth(
    harness: Harness,
) -> None:
    jobs = [harness.running() for _ in range(16)]
    barrier = threading.Barrier(32)

    def cancel(job_id: str, number: int) -> Any:
        barrier.wait()
        verb = harness.records.verbs.cancel
        return verb(VerbTarget(job_id), f"request-{number}", "o")

    def finish(job_id: str, run: Run) -> Finished | Superseded:
        barrier.wait()
        return harness.finish(job_id, run, Decision.DEAD_LETTERED)

    with ThreadPoolExecutor(32) as pool:
        finished = [pool.submit(finish, *job) for job in jobs]
        cancelled = [pool.submit(cancel, job_id, n) for n, (job_id, _) in enumerate(jobs)]
        pairs = [
            (one.result(), other.result()) for one, other in zip(finished, cancelled, strict=True)
        ]
    for (job_id, _), (done, _) in zip(jobs, pairs, strict=True):
        # Cancelled while it ran: no letter. Dead before: cancelled as a dead letter.
        assert harness.state(job_id) is State.CANCELLED
        assert isinstance(done, Superseded | Finished)


# -- for programs ---------------------------------------------------------------------------------


@pytest.fixture
def relayed(harness: Harness) -> Iterator[Harness]:
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(harness.relay.run, stop)
        yield harness
        stop.set()
        running.result()


def test_control_waits_for_the_answer(relayed: Harness) -> None:
    control = Control(relayed.database, relayed.records, OPS, wait_s=30)
    job_id, _ = relayed.queued()
    assert control.cancel(job_id, reason=WHY).outcome == "applied"
    other, _ = relayed.queued()
    outcome = asyncio.run(control.acancel(other, reason=WHY))
    assert (outcome.outcome, outcome.job_id) == ("applied", other)


def test_control_without_a_relay_says_what_to_do(harness: Harness) -> None:
    control = Control(harness.database, harness.records, OPS, wait_s=0)
    job_id, _ = harness.queued()
    outcome = control.cancel(job_id, reason=WHY)
    assert outcome.outcome == "pending"
    assert outcome.why.endswith("if none runs, start one: taskyard relay")


def test_control_connects_as_the_trusted_user_of_this_machine(relayed: Harness) -> None:
    settings = relayed.settings.model_copy(
        update={
            "database_url": relayed.database.url.render_as_string(hide_password=False),
            "trust_local": True,
        }
    )
    job_id, _ = relayed.queued()
    with Control.opened(settings) as control:
        outcome = control.cancel(job_id, reason=WHY)
    eventually(lambda: relayed.open_intents() == 0, "the answer")
    assert outcome.outcome in ("applied", "pending")
    assert relayed.last_audit()["identity_via"] == "local"


def test_a_control_that_is_open_acts_no_more_once_its_token_is_revoked(
    harness: Harness, database_url: str
) -> None:
    admin = Identity("root@example.com", via="local", role=Role.ADMIN)
    made = tokens.create(
        harness.database, "ada@example.com", Rights(Role.OPERATOR), identity=admin, reason=WHY
    )
    settings = Settings.model_validate(
        {
            **harness.settings.model_dump(exclude_unset=True),
            "database_url": database_url,
            "token": made.token.reveal(),
        }
    )
    (before, _), (after, _) = harness.queued(), harness.queued()
    with Control.opened(settings) as control:
        control.cancel(before, reason=WHY)
        tokens.revoke(harness.database, made.info.id, identity=admin, reason=WHY)
        with pytest.raises(TokenRefused, match="was revoked at"):
            control.cancel(after, reason=WHY)
    harness.relay_all()
    assert (harness.state(before), harness.state(after)) == (State.CANCELLED, State.ACCEPTED)


def test_the_ledger_and_the_letter_have_the_same_id(harness: Harness) -> None:
    letter = died(harness.records)
    seen = harness.cancel(letter.job_id).seen
    assert letter_id(letter.job_id, seen.epoch or 0, seen.generation or 0) == letter.letter_id
