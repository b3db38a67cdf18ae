"""Operators' verbs on live jobs, in the yard in memory, which runs production's scripts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from taskyard.errors import CodedError, JobFailed, Refused, UnknownQueue
from taskyard.jobs import JobContext
from taskyard.jobs.handler_registry import Registry
from taskyard.jobs.letter_states import LetterStatus
from taskyard.jobs.states import TERMINAL, TRANSITIONS, Event, State
from taskyard.jobs.verb_refusals import refusal_text
from taskyard.testing import Yard

LINEAR = {"max_retries": 3, "backoff_strategy": "linear", "base_delay_ms": 10_000, "jitter": False}
ONCE = {"max_retries": 0}
A_RENEWAL = timedelta(seconds=11)
OPERATORS = (Event.CANCEL, Event.ABORT, Event.FORCE_COMPLETE, Event.REROUTE)


class Shop:
    """A handler that calls its payload, and a list of what ran."""

    def __init__(self) -> None:
        self.handlers, self.ran = Registry(), 0
        self.handlers.job("work", queue="exec", policy=LINEAR, time_limit_s=100)(self.work)

    def work(self, payload: Any, context: JobContext) -> Any:
        self.ran += 1
        return self.act(payload, context)

    def act(self, payload: Any, context: JobContext) -> Any:
        return payload


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def yard(shop: Shop) -> Iterator[Yard]:
    with Yard(handlers=shop.handlers) as made:
        yield made


def act(shop: Shop, do: Any) -> None:
    shop.act = do  # type: ignore[method-assign]


def failing(_payload: Any, _context: JobContext) -> None:
    raise CodedError("timeout", "the other side is slow")


@pytest.mark.parametrize(("verb", "state"), [("cancel", State.CANCELLED), ("abort", State.ABORTED)])
def test_a_waiting_job_ends_now_and_its_message_runs_nothing(
    yard: Yard, shop: Shop, verb: str, state: State
) -> None:
    job = yard.enqueue("work", 1)
    assert getattr(yard, verb)(job) is state
    yard.settle()
    assert (shop.ran, job.state()) == (0, state)
    with pytest.raises(JobFailed, match=f"is {state}"):
        job.result()


def test_a_cancelled_job_stays_cancelled_however_long_its_message_waits(
    yard: Yard, shop: Shop
) -> None:
    waiting = timedelta(days=29)
    assert waiting.total_seconds() > yard.settings.dedupe_window_s
    job = yard.enqueue("work", 1)
    yard.cancel(job)
    yard.clock.advance(waiting)
    yard.settle()
    assert (shop.ran, job.state(), yard.letters) == (0, State.CANCELLED, [])


def test_a_message_that_was_seen_leaves_an_ordinary_tombstone(yard: Yard, shop: Shop) -> None:
    job = yard.enqueue("work", 1)
    yard.cancel(job)
    yard.run()
    yard.redeliver(job)
    yard.run()
    assert (shop.ran, job.state()) == (0, State.CANCELLED)
    yard.clock.advance(timedelta(seconds=yard.settings.dedupe_window_s + 1))
    assert job.state() is State.NONE


def test_an_id_that_was_cancelled_before_it_was_enqueued_is_not_enqueued(
    yard: Yard, shop: Shop
) -> None:
    with Yard(handlers=shop.handlers) as other:
        job_id = other.enqueue("work", 1, idempotency_key="order-7").job_id
    assert yard.cancel(job_id) is State.CANCELLED
    again = yard.enqueue("work", 1, idempotency_key="order-7")
    assert (again.created, again.state()) == (False, State.CANCELLED)


def test_a_retry_that_waits_is_cancelled(yard: Yard, shop: Shop) -> None:
    act(shop, failing)
    job = yard.enqueue("work", 1)
    yard.run()
    assert job.state() is State.RETRYING
    assert yard.cancel(job) is State.CANCELLED
    yard.settle()
    assert (shop.ran, job.state(), yard.letters) == (1, State.CANCELLED, [])


def test_a_running_handler_sees_that_it_is_cancelled_and_what_it_returns_is_dropped(
    yard: Yard, shop: Shop
) -> None:
    seen = []

    def stop_when_asked(_payload: Any, context: JobContext) -> str:
        assert yard.cancel(context.job_id) is State.RUNNING
        seen.append(context.cancelled)
        yard.clock.advance(A_RENEWAL)
        seen.append(context.cancelled)
        return "stopped"

    act(shop, stop_when_asked)
    job = yard.enqueue("work", 1)
    yard.settle()
    assert seen == [False, True]
    assert job.state() is State.CANCELLED
    assert yard.events(job) == ["admit", "begin", "request_cancel", "cancel"]


def test_a_handler_that_did_not_see_the_request_has_done_its_work(yard: Yard, shop: Shop) -> None:
    def go_on(_payload: Any, context: JobContext) -> str:
        yard.cancel(context.job_id)
        yard.clock.advance(A_RENEWAL)
        return "done"

    act(shop, go_on)
    job = yard.enqueue("work", 1)
    yard.settle()
    assert (job.state(), job.result()) == (State.COMPLETED, "done")
    with pytest.raises(Refused, match="is completed, so it cannot be cancelled"):
        yard.cancel(job)


def test_a_cancelled_attempt_that_fails_is_not_repeated_and_leaves_no_letter(
    yard: Yard, shop: Shop
) -> None:
    def fail(payload: Any, context: JobContext) -> None:
        yard.cancel(context.job_id)
        failing(payload, context)

    act(shop, fail)
    jobs = [yard.enqueue("work", 1), yard.enqueue("work", 1, policy=ONCE)]
    yard.settle()
    assert [job.state() for job in jobs] == [State.CANCELLED] * 2
    assert (shop.ran, yard.letters) == (2, [])


@pytest.mark.parametrize("whole_worker", [False, True])
def test_a_cancelled_attempt_whose_process_dies_does_not_begin_again(
    yard: Yard, shop: Shop, whole_worker: bool
) -> None:
    act(shop, lambda _payload, context: yard.cancel(context.job_id))
    job = yard.enqueue("work", 1)
    yard.kill_next_attempt(job, after_handler=True, whole_worker=whole_worker)
    yard.settle()
    assert (shop.ran, job.state()) == (1, State.CANCELLED)


def test_an_abort_supersedes_the_attempt_that_runs(yard: Yard, shop: Shop) -> None:
    act(shop, lambda _payload, context: yard.abort(context.job_id))
    job = yard.enqueue("work", 1)
    yard.settle()
    assert (shop.ran, job.state()) == (1, State.ABORTED)


def test_the_first_of_two_verbs_wins_and_the_other_is_refused(yard: Yard, shop: Shop) -> None:
    def both(_payload: Any, context: JobContext) -> None:
        yard.cancel(context.job_id)
        yard.abort(context.job_id)

    act(shop, both)
    job = yard.enqueue("work", 1)
    yard.settle()
    assert job.state() is State.ABORTED
    with pytest.raises(Refused, match="is aborted, so it cannot be cancelled"):
        yard.cancel(job)


def test_a_forced_completion_gives_its_result_and_the_message_runs_nothing(
    yard: Yard, shop: Shop
) -> None:
    job = yard.enqueue("work", 1)
    assert yard.force_complete(job, {"answered": "by mail"}) is State.COMPLETED
    yard.settle()
    assert (shop.ran, job.result()) == (0, {"answered": "by mail"})


@pytest.mark.parametrize(
    ("verb", "status"),
    [
        ("cancel", LetterStatus.CANCELLED),
        ("abort", LetterStatus.CANCELLED),
        ("force_complete", LetterStatus.COMPLETED),
    ],
)
def test_a_dead_letter_is_closed_with_its_job(
    yard: Yard, shop: Shop, verb: str, status: LetterStatus
) -> None:
    act(shop, failing)
    job = yard.enqueue("work", 1, policy=ONCE)
    yard.settle()
    (letter,) = yard.letters
    getattr(yard, verb)(job)
    assert yard.letter_status(letter) is status
    with pytest.raises(Refused, match=f"has status '{status}'"):
        yard.replay(letter)


def test_a_rerouted_job_runs_in_its_new_queue_when_its_message_is_taken(
    yard: Yard, shop: Shop
) -> None:
    job = yard.enqueue("work", 1)
    assert yard.reroute(job, "plan") is State.REROUTED
    yard.run_one()
    assert (shop.ran, job.state(), job.record().queue) == (0, State.ACCEPTED, "plan")
    yard.run()
    assert (shop.ran, job.result()) == (1, 1)
    assert yard.events(job) == ["admit", "reroute", "requeue", "begin", "complete"]


def test_a_job_that_waits_for_its_time_is_forwarded_then(yard: Yard, shop: Shop) -> None:
    job = yard.enqueue("work", 1, countdown=60)
    yard.reroute(job, "plan")
    yard.run()
    assert job.state() is State.REROUTED
    yard.settle()
    assert (shop.ran, job.result(), job.record().queue) == (1, 1, "plan")


def test_a_running_attempt_is_dropped_and_the_job_runs_again_in_the_other_queue(
    yard: Yard, shop: Shop
) -> None:
    seen = []

    def move_once(_payload: Any, context: JobContext) -> int:
        if shop.ran == 1:
            yard.reroute(context.job_id, "plan")
            yard.clock.advance(A_RENEWAL)
        seen.append((context.attempt, context.cancelled))
        return shop.ran

    act(shop, move_once)
    job = yard.enqueue("work", 1)
    yard.settle()
    assert seen == [(1, True), (1, False)]
    assert (job.result(), job.record().queue) == (2, "plan")


@pytest.mark.parametrize("after", [False, True])
def test_a_process_that_dies_in_a_rerouted_attempt_forwards_its_message(
    yard: Yard, shop: Shop, after: bool
) -> None:
    def move_once(_payload: Any, context: JobContext) -> int:
        if shop.ran == 1:
            yard.reroute(context.job_id, "plan")
        return shop.ran

    act(shop, move_once)
    job = yard.enqueue("work", 1)
    yard.kill_next_attempt(job, after_handler=True, whole_worker=after)
    yard.settle()
    assert (job.result(), job.record().queue) == (2, "plan")


def test_a_retry_that_waits_is_rerouted_with_new_counters(yard: Yard, shop: Shop) -> None:
    act(shop, failing)
    job = yard.enqueue("work", 1)
    yard.run()
    yard.reroute(job, "plan")
    yard.settle()
    assert (shop.ran, job.state()) == (1 + 4, State.DEAD_LETTERED)
    (letter,) = yard.letters
    assert (letter.queue, letter.generation) == ("plan", 1)


def test_an_expired_message_dies_in_the_queue_to_which_it_was_moved(yard: Yard, shop: Shop) -> None:
    job = yard.enqueue("work", 1, expires=5)
    yard.reroute(job, "plan")
    yard.clock.advance(timedelta(seconds=6))
    yard.settle()
    (letter,) = yard.letters
    assert (shop.ran, letter.code, letter.queue) == (0, "expired", "plan")


def test_a_rerouted_job_that_is_cancelled_runs_nowhere(yard: Yard, shop: Shop) -> None:
    job = yard.enqueue("work", 1)
    yard.reroute(job, "plan")
    assert yard.cancel(job) is State.CANCELLED
    yard.settle()
    assert (shop.ran, job.state()) == (0, State.CANCELLED)


def test_a_reroute_to_no_queue_or_to_the_same_one_is_refused(yard: Yard) -> None:
    job = yard.enqueue("work", 1)
    with pytest.raises(UnknownQueue, match="plain"):
        yard.reroute(job, "plain")
    with pytest.raises(Refused, match="was not rerouted: it is in that queue already"):
        yard.reroute(job, "exec")


def test_cancelling_twice_changes_nothing_else(yard: Yard) -> None:
    job = yard.enqueue("work", 1)
    yard.cancel(job)
    before = job.record()
    assert yard.cancel(job) is State.CANCELLED
    assert job.record() == before


@pytest.mark.parametrize("event", OPERATORS)
@pytest.mark.parametrize("state", State)
def test_every_refusal_names_the_rule_and_a_remedy(event: Event, state: State) -> None:
    if (state, event) in TRANSITIONS:
        return
    text = refusal_text(event, "7f3", "state", state)
    assert text.startswith(f"job 7f3 is {state}, so it cannot be ")
    remedy = "enqueue it under another id" if state in TERMINAL else "taskyard dlq replay"
    assert remedy in text


@pytest.mark.parametrize("why", ["queue", "cancel", "unpublished", "observed"])
def test_a_job_that_cannot_be_moved_now_says_why_and_what_to_do(why: str) -> None:
    text = refusal_text(Event.REROUTE, "7f3", why, State.RUNNING)
    assert text.startswith("job 7f3 was not rerouted: ")
    assert "taskyard " in text or "protect the task" in text


@pytest.mark.parametrize("why", ["epoch", "generation", "version"])
def test_a_job_that_has_moved_on_is_refused_with_what_to_do(why: str) -> None:
    text = refusal_text(Event.CANCEL, "7f3", why, State.RUNNING)
    assert "is not the job that was asked for" in text
    assert text.endswith("and is running now. Look at it, then ask again: taskyard jobs show 7f3")


# -- purge ----------------------------------------------------------------------------------------


def test_a_purge_cancels_what_waits_in_its_queue_and_removes_it(yard: Yard, shop: Shop) -> None:
    jobs = [yard.enqueue("work", number) for number in range(3)]
    other, later = yard.enqueue("work", 4, queue="plan"), yard.enqueue("work", 5, countdown=60)
    assert yard.purge("exec") == len(jobs)
    assert {job.state() for job in jobs} == {State.CANCELLED}
    assert "kept" not in jobs[0].record().fields
    assert yard.purge("exec", delayed=True) == 1
    yard.settle()
    assert (shop.ran, other.state(), later.state()) == (1, State.COMPLETED, State.CANCELLED)


def test_a_purge_leaves_the_message_of_a_moved_job(yard: Yard, shop: Shop) -> None:
    job = yard.enqueue("work", 1)
    yard.reroute(job, "plan")
    assert yard.purge("exec") == 0
    yard.settle()
    assert (shop.ran, job.state()) == (1, State.COMPLETED)


def test_a_purge_replies_to_services_and_refuses_an_unknown_queue(yard: Yard) -> None:
    job = yard.enqueue("work", 1, reply_to="answers")
    assert yard.purge("exec") == 1
    assert [reply.body for reply in yard.replies] == [{"job_id": job.job_id, "state": "cancelled"}]
    with pytest.raises(UnknownQueue, match="there is no queue 'exce'"):
        yard.purge("exce")
