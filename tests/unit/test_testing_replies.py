"""Replies to services whose jobs an operator has ended, in the yard in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from taskyard.client import EnqueueRequest
from taskyard.errors import CodedError, InvalidPayload
from taskyard.jobs import JobContext
from taskyard.jobs.handler_registry import Registry
from taskyard.jobs.states import State
from taskyard.testing import SentReply, Yard

QUEUE = "orders.replies"
A_RENEWAL = timedelta(seconds=11)


class Shop:
    """A handler whose behaviour a test may replace."""

    def __init__(self) -> None:
        self.handlers = Registry()
        self.handlers.job("work", queue="exec", policy={"max_retries": 0})(self.work)

    def work(self, payload: Any, context: JobContext) -> Any:
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


def only_reply(yard: Yard) -> SentReply:
    (reply,) = yard.replies
    return reply


@pytest.mark.parametrize("verb", ["cancel", "abort"])
def test_the_service_of_a_waiting_job_hears_its_end(yard: Yard, verb: str) -> None:
    job = yard.enqueue("work", 1, reply_to=QUEUE)
    state = getattr(yard, verb)(job)
    reply = only_reply(yard)
    assert (reply.queue, reply.correlation_id) == (QUEUE, job.job_id)
    assert reply.body == {"job_id": job.job_id, "state": state.value}
    yard.settle()
    assert yard.replies == [reply]


def test_a_forced_completion_gives_the_result_and_the_summary(yard: Yard) -> None:
    job = yard.enqueue("work", 1, reply_to=QUEUE)
    yard.force_complete(job, {"sent": ["by", "hand"]}, summary="Answered by telephone")
    assert only_reply(yard).body == {
        "job_id": job.job_id,
        "state": "completed",
        "result": {"sent": ["by", "hand"]},
        "summary": "Answered by telephone",
    }


def test_a_completion_without_a_result_says_that_the_result_is_null(yard: Yard) -> None:
    job = yard.enqueue("work", 1, reply_to=QUEUE)
    yard.force_complete(job)
    assert only_reply(yard).body == {"job_id": job.job_id, "state": "completed", "result": None}


def test_a_running_job_that_stops_is_answered_when_its_attempt_has_ended(
    yard: Yard, shop: Shop
) -> None:
    job = yard.enqueue("work", 1, reply_to=QUEUE)
    during = []

    def stops(_: Any, context: JobContext) -> None:
        yard.cancel(job)
        during.append(yard.replies)
        yard.clock.advance(A_RENEWAL)
        assert context.cancelled

    act(shop, stops)
    yard.run()
    assert (during, job.state()) == ([[]], State.CANCELLED)
    assert only_reply(yard).body["state"] == "cancelled"


def test_a_handler_that_did_not_see_the_request_answers_itself(yard: Yard, shop: Shop) -> None:
    job = yard.enqueue("work", 1, reply_to=QUEUE)
    act(shop, lambda *_: yard.cancel(job).value)
    yard.settle()
    assert (job.state(), yard.replies) == (State.COMPLETED, [])


def test_a_dead_lettered_job_is_answered(yard: Yard, shop: Shop) -> None:
    def fails(*_: Any) -> None:
        raise CodedError("timeout", "the other side is slow")

    act(shop, fails)
    job = yard.enqueue("work", 1, reply_to=QUEUE)
    yard.settle()
    assert (job.state(), yard.replies) == (State.DEAD_LETTERED, [])
    yard.cancel(job)
    assert only_reply(yard).body["state"] == "cancelled"


def test_a_replayed_and_a_rerouted_job_still_know_their_service(yard: Yard, shop: Shop) -> None:
    def fails(*_: Any) -> None:
        raise CodedError("timeout", "the other side is slow")

    act(shop, fails)
    job = yard.enqueue("work", 1, reply_to=QUEUE)
    yard.settle()
    yard.replay(job)
    yard.reroute(job, "plan")
    assert yard.replies == []
    yard.abort(job)
    assert only_reply(yard).body["state"] == "aborted"


def test_two_requests_for_one_job_reply_once(yard: Yard) -> None:
    job = yard.enqueue("work", 1, reply_to=QUEUE)
    assert yard.cancel(job) is yard.cancel(job) is State.CANCELLED
    assert len(yard.replies) == 1


@pytest.mark.parametrize("reply_to", [None, ""])
def test_a_job_without_a_queue_for_replies_costs_nothing(yard: Yard, reply_to: str | None) -> None:
    job = yard.enqueue("work", 1, reply_to=reply_to)
    assert not {"reply_to", "correlation_id"} & job.record().fields.keys()
    yard.cancel(job)
    assert yard.replies == []
    assert not {"reply_to", "correlation_id"} & job.record().fields.keys()


def test_a_job_that_its_handler_has_ended_forgets_its_service(yard: Yard) -> None:
    job = yard.enqueue("work", 1, reply_to=QUEUE)
    assert job.record().fields["reply_to"] == QUEUE
    assert job.record().fields["correlation_id"] == job.job_id
    yard.settle()
    assert job.state() is State.COMPLETED
    assert not {"reply_to", "correlation_id"} & job.record().fields.keys()


def test_every_way_to_enqueue_keeps_the_queue(yard: Yard) -> None:
    jobs = [asyncio.run(yard.aenqueue("work", 1, reply_to="a"))]
    names = ("b", None, "c")
    jobs += yard.enqueue_many(
        EnqueueRequest(job_type="work", payload=1, reply_to=name) for name in names
    )
    kept = [job.record().fields.get("reply_to") for job in jobs]
    assert kept == ["a", "b", None, "c"]


def test_a_second_enqueue_with_the_same_key_keeps_the_first_queue(yard: Yard) -> None:
    job = yard.enqueue("work", 1, reply_to="first", idempotency_key="k")
    again = yard.enqueue("work", 1, reply_to="second", idempotency_key="k")
    assert not again.created
    yard.cancel(job)
    assert only_reply(yard).queue == "first"


@pytest.mark.parametrize("reply_to", ["\ud800", "q" * 256, "\u20ac" * 86, 7])
def test_a_name_that_no_queue_can_have_is_refused(yard: Yard, reply_to: Any) -> None:
    with pytest.raises(InvalidPayload, match="reply_to must be a text of at most 255 bytes"):
        yard.enqueue("work", 1, reply_to=reply_to)
