"""A purge cancels each job in its record, audited, and its messages leave the queue, no others."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisDown
from sqlalchemy import Engine

from servers import Servers
from support.letters import make_delivery
from support.purging import ADMIN, BROKERS, WHY, PurgeScene, purging
from support.reply_queue import declared
from support.waiting import eventually
from taskyard import outbox
from taskyard.access import Action, Identity, Role
from taskyard.broker import RabbitQueueMessages, RedisQueueMessages
from taskyard.client import JobHandle
from taskyard.control import Control, PurgeCounts
from taskyard.control.purge_outcome import Drop, Keep
from taskyard.database.tables import LEDGER
from taskyard.deadletters import build_letter
from taskyard.errors import (
    InvalidPayload,
    InvalidReason,
    JobFailed,
    NotFound,
    NotPermitted,
    PurgeStopped,
    Refused,
    ServerUnreachable,
)
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.jobs.states import State
from taskyard.mirror.store_letters import store_letters
from taskyard.records import Run, VerbApplied, VerbTarget
from taskyard.wire import RawMessage

pytestmark = pytest.mark.slow

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True


@pytest.fixture(params=BROKERS)
def scene(
    request: pytest.FixtureRequest, servers: Servers, empty_database: Engine
) -> Iterator[PurgeScene]:
    with purging(request.param, servers, empty_database) as made:
        yield made


def begin(scene: PurgeScene, job: JobHandle, holder: str = "h") -> Run:
    run = scene.records.attempts.begin(
        job.job_id, None, holder=holder, worker="w@host", process="1", job_type="exec_act",
        queue="exec",
    )  # fmt: skip
    assert isinstance(run, Run), run
    return run


def finish(scene: PurgeScene, job: JobHandle, run: Run, decision: Decision) -> None:
    scene.records.attempts.finish(
        job.job_id,
        decision,
        epoch=run.epoch,
        generation=run.generation,
        seq=run.seq,
        token=run.token,
        result=b"{}",
        cause=b'{"category": "timeout", "code": "timeout", "message": "late"}',
        code="timeout",
        category="timeout",
        message="late",
        delay_s=60,
    )


# -- what a purge does ----------------------------------------------------------------------------


def test_every_job_is_cancelled_and_audited_and_no_message_is_left(scene: PurgeScene) -> None:
    jobs = [
        scene.harness.act(priority=priority, job_type=job_type, queue="exec")
        for priority in (1, 2, 3, 4)
        for job_type in ("exec_act", "plan_act")
    ]
    others = scene.enqueue(2, job_type="plan_act")
    assert scene.depth() == len(jobs)
    outcome = scene.purge(on_behalf_of="marketing@example.com")
    assert scene.depth() == 0
    assert (outcome.waiting, outcome.remaining) == (len(jobs), 0)
    assert (outcome.counts.cancelled, outcome.counts.removed) == (len(jobs), len(jobs))
    for job in jobs:
        scene.check_cancelled(job)
        with pytest.raises(JobFailed, match="cancelled"):
            job.result(timeout=5)
        requested, applied = scene.rows_of_job(job.job_id)
        assert (requested["reason"], requested["operator_identity"]) == (WHY, ADMIN.subject)
        assert requested["on_behalf_of"] == "marketing@example.com"
        assert requested["detail"]["purge"] == str(outcome.request_id)
        assert requested["detail"]["state"] == "accepted"
        assert applied["detail"]["state"] == "cancelled"
    first, last = scene.rows(outcome.request_id)
    assert (first["action_type"], first["outcome"]) == (Action.PURGE_QUEUE, "requested")
    assert first["detail"] == {"queue": "exec", "waiting": len(jobs), "delayed": False}
    assert last["outcome"] == "applied"
    assert last["detail"] == {**outcome.counts.document(), "remaining": 0}
    assert scene.open_intents() == 0
    assert [job.state() for job in others] == [State.ACCEPTED] * 2
    assert scene.depth("plan") == len(others)


def test_the_record_waits_no_longer_for_a_message_that_was_removed(scene: PurgeScene) -> None:
    (job,) = scene.enqueue(1)
    scene.purge()
    assert "kept" not in job.record().fields
    left_ms = scene.harness.redis.pttl(scene.records.keys.record(job.job_id))
    window_ms = max(scene.settings.dedupe_window_s, 24 * 3600) * 1000
    assert 0 < left_ms <= window_ms


def test_an_empty_queue_is_purged_and_audited_too(scene: PurgeScene) -> None:
    scene.enqueue(1)
    scene.take()
    outcome = scene.purge()
    assert (outcome.waiting, outcome.counts) == (0, PurgeCounts())
    assert [row["outcome"] for row in scene.rows(outcome.request_id)] == ["requested", "applied"]


def test_a_job_without_a_record_is_cancelled_under_its_id(scene: PurgeScene) -> None:
    """As `delay()` and other languages publish: no admission, no stamp."""
    job_id = str(uuid.uuid4())
    scene.enqueue(1)
    scene.send({"id": job_id, "task": "exec_act"})
    outcome = scene.purge()
    assert outcome.counts.cancelled == 2
    record = scene.records.read(job_id)
    assert (record.state, record.queue, record.job_type) == (State.CANCELLED, "exec", "exec_act")
    assert [row["outcome"] for row in scene.rows_of_job(job_id)] == ["requested", "applied"]
    assert scene.depth() == 0


def test_messages_that_would_do_nothing_are_dropped(scene: PurgeScene) -> None:
    ended, moved_on, other = scene.enqueue(3)
    finish(scene, ended, begin(scene, ended), Decision.COMPLETED)
    scene.send(scene.stamped(moved_on, epoch=moved_on.record().epoch - 1))
    scene.send({"id": other.job_id, "task": "plan_act"})
    scene.send({})
    scene.send(None)
    outcome = scene.purge()
    dropped = outcome.counts.dropped
    assert dropped == {Drop.ENDED: 1, Drop.STALE: 1, Drop.NO_JOB: 3}
    assert outcome.counts.removed == 7
    assert scene.depth() == 0
    assert ended.state() is State.COMPLETED
    for job in (moved_on, other):
        scene.check_cancelled(job)


def test_two_messages_of_one_job_cancel_it_once(scene: PurgeScene) -> None:
    (job,) = scene.enqueue(1)
    scene.send(scene.stamped(job))
    outcome = scene.purge()
    assert (outcome.counts.cancelled, outcome.counts.removed) == (1, 2)
    scene.check_cancelled(job)


def test_the_message_of_a_completed_job_stays_if_something_follows_it(scene: PurgeScene) -> None:
    """Its worker died before it published the chain: whoever takes it, does that."""
    (job,) = scene.enqueue(1)
    scene.take()
    finish(scene, job, begin(scene, job), Decision.COMPLETED)
    follows = b'[[], {}, {"callbacks": null, "chain": [{"task": "exec_act"}], "chord": null}]'
    scene.send(scene.stamped(job), follows)
    scene.send(scene.stamped(job), b"not JSON")
    outcome = scene.purge()
    assert outcome.counts.kept == {Keep.CONTINUES: 2}
    assert (outcome.remaining, scene.depth()) == (2, 2)


def test_a_dead_letter_stays_until_postgres_has_it(scene: PurgeScene) -> None:
    (job,) = scene.enqueue(1)
    finish(scene, job, begin(scene, job), Decision.DEAD_LETTERED)
    assert scene.purge().counts.kept == {Keep.LETTER: 1}
    assert scene.depth() == 1
    letter = build_letter(job.record(), RawMessage(body=b"{}"))
    with scene.database.begin() as connection:
        store_letters(connection, [make_delivery(letter)])
    assert scene.purge().counts.dropped == {Drop.ENDED: 1}
    assert (job.state(), scene.depth()) == (State.DEAD_LETTERED, 0)


def test_a_retry_that_waits_in_the_queue_is_cancelled(scene: PurgeScene) -> None:
    """The message whose own decision was the retry: it would publish the retry again."""
    (job,) = scene.enqueue(1)
    finish(scene, job, begin(scene, job), Decision.RETRYING)
    assert job.state() is State.RETRYING
    assert scene.purge().counts.cancelled == 1
    scene.check_cancelled(job)


def test_a_job_that_was_moved_to_another_queue_stays_its_own(scene: PurgeScene) -> None:
    (job,) = scene.enqueue(1)
    answer = scene.records.verbs.reroute(VerbTarget(job.job_id), "r", "ops", "plan")
    assert isinstance(answer, VerbApplied)
    outcome = scene.purge()
    assert outcome.counts.kept == {Keep.MOVED: 1}
    assert job.state() is State.REROUTED


def test_a_running_attempt_whose_message_is_back_is_asked_to_stop(scene: PurgeScene) -> None:
    (job,) = scene.enqueue(1)
    run = begin(scene, job)
    outcome = scene.purge()
    assert (outcome.counts.asked, outcome.counts.cancelled, outcome.remaining) == (1, 0, 0)
    assert (job.state(), scene.open_intents()) == (State.RUNNING, 1)
    scene.records.attempts.release(job.job_id, "h")
    assert run.token
    scene.relay_all()
    scene.check_cancelled(job)


def test_what_is_enqueued_while_the_purge_works_stays(scene: PurgeScene) -> None:
    scene.enqueue(450)
    later: list[JobHandle] = []

    def enqueue_one(_: PurgeCounts) -> None:
        later.extend(scene.enqueue(1))

    outcome = scene.purge(progress=enqueue_one)
    assert outcome.counts.cancelled == 450
    assert [job.state() for job in later] == [State.ACCEPTED] * 3
    assert outcome.remaining >= 2
    assert scene.depth() == 3


def test_a_service_that_waits_for_a_reply_gets_one(scene: PurgeScene) -> None:
    with declared(scene.settings) as replies:
        (job,) = scene.enqueue(1, reply_to=replies.name)
        outcome = scene.purge()
        assert (outcome.counts.cancelled, outcome.counts.left) == (1, 1)
        assert (job.state(), scene.depth()) == (State.CANCELLED, 0)
        scene.relay_all()
        (reply,) = eventually(replies.take, "the reply")
        assert reply.body == {"job_id": job.job_id, "state": "cancelled"}
    scene.check_cancelled(job)


def test_two_purges_at_once_end_each_job_once(scene: PurgeScene) -> None:
    jobs = scene.enqueue(300)
    outcomes = []
    threads = [threading.Thread(target=lambda: outcomes.append(scene.purge())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(outcomes) == 2
    assert scene.depth() == 0
    assert sum(outcome.counts.cancelled for outcome in outcomes) == len(jobs)
    for job in jobs:
        scene.check_cancelled(job)
    assert scene.open_intents() == 0


def test_a_coroutine_can_purge(scene: PurgeScene) -> None:
    (job,) = scene.enqueue(1)
    outcome = asyncio.run(scene.control.apurge_queue("exec", reason=WHY))
    assert outcome.counts.cancelled == 1
    scene.check_cancelled(job)


def test_a_replayed_job_is_cancelled_in_its_generation(scene: PurgeScene) -> None:
    (job,) = scene.enqueue(1)
    scene.take()
    run = begin(scene, job)
    finish(scene, job, run, Decision.DEAD_LETTERED)
    place = {"epoch": run.epoch, "generation": 0, "job_type": "exec_act", "queue": "exec"}
    scene.records.replay(job_id=job.job_id, request_id="r", priority=None, **place)
    scene.send(scene.stamped(job, generation=0))
    scene.send(scene.stamped(job))
    outcome = scene.purge()
    assert (outcome.counts.cancelled, outcome.counts.dropped) == (1, {Drop.STALE: 1})
    assert (job.state(), job.record().generation) == (State.CANCELLED, 1)


# -- what waits for its time ----------------------------------------------------------------------


def test_what_waits_for_its_time_is_purged_only_when_asked(scene: PurgeScene) -> None:
    if scene.rabbit:
        pytest.skip("see the next test")
    delayed = scene.enqueue(3, countdown=600)
    (other,) = scene.enqueue(1, job_type="plan_act", countdown=600)
    assert scene.purge().counts.cancelled == 0
    outcome = scene.purge(delayed=True)
    assert (outcome.counts.cancelled, outcome.counts.removed) == (3, 3)
    for job in delayed:
        scene.check_cancelled(job)
    assert (other.state(), scene.harness.delayed()) == (State.ACCEPTED, 1)


def test_rabbitmq_keeps_what_waits_for_its_time_and_a_worker_skips_it(
    servers: Servers, empty_database: Engine
) -> None:
    with purging("rabbitmq", servers, empty_database) as scene:
        delayed, now = scene.enqueue(2, countdown=1), scene.enqueue(1)
        for job in (*delayed, *now):
            note_in_ledger(scene, job)
        outcome = scene.purge(delayed=True)
        counts = outcome.counts
        assert (counts.cancelled, counts.removed, counts.not_removed) == (3, 1, 2)
        for job in (*delayed, *now):
            scene.check_cancelled(job)
        assert all("kept" in job.record().fields for job in delayed)
        eventually(lambda: scene.depth() == 2, "their time has come")
        assert scene.purge().counts.dropped == {Drop.ENDED: 2}


def note_in_ledger(scene: PurgeScene, job: JobHandle) -> None:
    facts = {"version": 1, "state": "accepted", "generation": 0, "seq": 0, "job_type": "exec_act"}
    row = {"job_id": job.job_id, "epoch": job.record().epoch, "queue": "exec", **facts}
    with scene.database.begin() as connection:
        connection.execute(LEDGER.insert().values(updated_at=datetime.now(UTC), **row))


# -- who may purge, and what is refused -----------------------------------------------------------


@pytest.mark.parametrize(
    ("identity", "text"),
    [
        (replace(ADMIN, role=Role.OPERATOR), "needs the role admin"),
        (replace(ADMIN, queues=frozenset({"plan"})), "may not do purge_queue in the queue 'exec'"),
        (replace(ADMIN, domains=frozenset({"billing"})), "jobs cancel --queue exec --domain"),
    ],
    ids=["role", "queue", "domain"],
)
def test_who_may_not_purge_is_denied_and_audited(
    scene: PurgeScene, identity: Identity, text: str
) -> None:
    (job,) = scene.enqueue(1)
    control = Control(scene.database, scene.records, identity)
    with pytest.raises(NotPermitted, match=text):
        control.purge_queue("exec", reason=WHY)
    row = scene.last_row()
    assert (row["action_type"], row["outcome"]) == (Action.PURGE_QUEUE, "denied")
    assert (job.state(), scene.depth()) == (State.ACCEPTED, 1)


@pytest.mark.parametrize(
    ("queue", "options", "kind", "text"),
    [
        ("exec", {"reason": "testing"}, InvalidReason, "too short or too general"),
        ("exec", {"reason": None}, InvalidReason, "a reason is required"),
        ("exec", {"at_most": 0}, Refused, "1 messages wait in queue 'exec', and 0 were confirmed"),
        ("exce", {}, NotFound, "there is no queue 'exce'.*taskyard queues list"),
        ("a\x1bb", {}, InvalidPayload, "no control characters"),
    ],
)
def test_a_refusal_is_audited_and_changes_nothing(
    scene: PurgeScene, queue: str, options: dict[str, Any], kind: type[Exception], text: str
) -> None:
    (job,) = scene.enqueue(1)
    with pytest.raises(kind, match=text):
        scene.control.purge_queue(queue, **{"reason": WHY, **options})
    row = scene.last_row()
    assert row["action_type"] == Action.PURGE_QUEUE
    assert row["outcome"].startswith("refused: ")
    assert (job.state(), scene.depth(), scene.open_intents()) == (State.ACCEPTED, 1, 0)


def test_an_admin_of_some_queues_does_not_reach_jobs_of_others(scene: PurgeScene) -> None:
    """Whoever can publish can put the id of another queue's job into this one."""
    (job,) = scene.enqueue(1, job_type="plan_act")
    scene.enqueue(1)
    scene.take()
    scene.send({**scene.stamped(job), "task": "plan_act"})
    bound = replace(ADMIN, queues=frozenset({"exec"}))
    outcome = Control(scene.database, scene.records, bound).purge_queue("exec", reason=WHY)
    assert outcome.counts.kept == {Keep.OUTSIDE: 1}
    assert job.state() is State.ACCEPTED


# -- what goes wrong ------------------------------------------------------------------------------


def test_a_server_that_fails_in_the_middle_stops_the_purge_with_what_was_done(
    scene: PurgeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = scene.enqueue(450)
    kind = RabbitQueueMessages if scene.rabbit else RedisQueueMessages
    remove, calls = kind.remove, []

    def fail_the_third_time(messages: Any, gone: Any) -> list[bool]:
        calls.append(len(gone))
        if len(calls) == 3:
            raise RedisDown("connection lost")
        return list(remove(messages, gone))

    monkeypatch.setattr(kind, "remove", fail_the_third_time)
    with pytest.raises(PurgeStopped, match="run it again: taskyard queues purge exec") as stopped:
        scene.purge()
    assert stopped.value.done["cancelled"] == 450
    assert stopped.value.done["removed"] == 400
    row = scene.last_row()
    assert row["outcome"].startswith("refused: the purge of queue 'exec' stopped: connection lost")
    assert row["detail"]["removed"] == 400
    monkeypatch.undo()
    assert scene.purge().counts.dropped == {Drop.ENDED: 50}
    for job in jobs:
        scene.check_cancelled(job)
    assert scene.depth() == 0


def test_postgres_that_fails_in_the_middle_stops_the_purge_before_a_job_is_cancelled(
    scene: PurgeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = scene.enqueue(2)

    def fail(*_: Any) -> bool:
        raise ServerUnreachable("Postgres", "postgresql://p", "connection lost", "Start it")

    monkeypatch.setattr(outbox, "keep_ahead", fail)
    with pytest.raises(PurgeStopped, match=r"Postgres at postgresql://p has failed \(connection"):
        scene.purge()
    assert {job.state() for job in jobs} == {State.ACCEPTED}
    eventually(lambda: scene.depth() == 2, "no message has left")


def test_rabbitmq_does_not_return_what_it_may_drop_once_more(
    servers: Servers, empty_database: Engine
) -> None:
    with purging("rabbitmq", servers, empty_database) as scene:
        (job,) = scene.enqueue(1)
        scene.take()
        scene.records.verbs.reroute(VerbTarget(job.job_id), "r", "ops", "plan")
        scene.send({**scene.stamped(job, generation=0), "x-delivery-count": 10})
        with pytest.raises(PurgeStopped, match="was returned 10 times already"):
            scene.purge()
        eventually(lambda: scene.depth() == 1, "it is in its queue")
        assert job.state() is State.REROUTED


def test_a_record_of_another_type_stops_nothing(scene: PurgeScene) -> None:
    odd, good = scene.enqueue(2)
    key = scene.records.keys.record(odd.job_id)
    scene.harness.redis.delete(key)
    scene.harness.redis.set(key, "odd")
    outcome = scene.purge()
    assert (outcome.counts.cancelled, outcome.counts.kept) == (1, {Keep.UNREADABLE: 1})
    scene.check_cancelled(good)
    assert scene.depth() == 1
