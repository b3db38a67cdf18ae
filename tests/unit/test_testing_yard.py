"""The yard in memory: what a user's test can do with it beyond what the conformance suite sees."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from pydantic import BaseModel, Field, RootModel

from taskyard.client import Taskyard
from taskyard.errors import (
    CodedError,
    DeadLettered,
    InvalidPayload,
    JobFailed,
    LeaseLost,
    NotFound,
    Refused,
    ResultTimeout,
    TaskyardError,
    UnknownJobType,
)
from taskyard.jobs import Catalogue, JobContext, JobType
from taskyard.jobs.handler_registry import Registry
from taskyard.jobs.states import State
from taskyard.settings import Settings
from taskyard.testing import ProcessKilled, Yard, YardClock

S = timedelta(seconds=1)
START = datetime(2030, 1, 1, tzinfo=UTC)
LINEAR = {"max_retries": 3, "backoff_strategy": "linear", "base_delay_ms": 10_000, "jitter": False}


class Order(BaseModel):
    numbers: tuple[int, ...] = Field(strict=True)


class Numbers(RootModel[list[int]]): ...


def book(order: Order) -> None: ...


def add(numbers: Numbers) -> None: ...


class Shop:
    """Handlers that do what the payload says, and a list of what ran."""

    def __init__(self) -> None:
        self.handlers = Registry()
        self.ran: list[Any] = []
        self.context: JobContext | None = None
        self.handlers.job("work", queue="exec", policy=LINEAR, time_limit_s=100)(self.work)
        self.handlers.job("awork", queue="plan", policy=LINEAR)(self.awork)

    def work(self, payload: Any, context: JobContext) -> Any:
        self.ran.append(payload)
        self.context = context
        if payload == "fail":
            raise CodedError("timeout", "told to")
        if callable(payload):
            return payload(context)
        return payload

    async def awork(self, payload: Any) -> Any:
        await asyncio.sleep(0)
        return payload


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def yard(shop: Shop) -> Iterator[Yard]:
    with Yard(handlers=shop.handlers, clock=YardClock(START)) as made:
        yield made


def test_the_yard_has_the_clients_methods_with_the_clients_arguments() -> None:
    for name, theirs in inspect.getmembers(Taskyard, inspect.isfunction):
        ours = getattr(Yard, name)
        if not name.startswith("_"):
            assert ours is not theirs, f"a yard has no {name} of its own"
            assert inspect.signature(ours) == inspect.signature(theirs), name


def test_nothing_runs_before_it_is_told_to(yard: Yard, shop: Shop) -> None:
    job = yard.enqueue("work", 1)
    assert (job.state(), shop.ran) == (State.ACCEPTED, [])
    assert yard.run() == 1
    assert (job.state(), shop.ran) == (State.COMPLETED, [1])
    assert yard.run() == 0


def test_a_job_type_of_the_catalogue_wins_over_the_decorator_as_in_a_worker(shop: Shop) -> None:
    catalogue = Catalogue({"work": JobType(name="work", queue="plan")})
    with Yard(catalogue=catalogue, handlers=shop.handlers) as yard:
        assert yard.catalogue["work"].queue == "plan"
        assert yard.catalogue["work"].policy.max_retries == 3


def test_a_decorator_whose_file_is_not_there_hinders_no_other_job(shop: Shop) -> None:
    shop.handlers.job("filed", policy=LINEAR)(shop.awork)
    with Yard(handlers=shop.handlers) as yard:
        job = yard.enqueue("work", 1)
        yard.run()
        assert job.result() == 1
        with pytest.raises(UnknownJobType, match="there is no job type 'filed'"):
            yard.enqueue("filed", 1)


def test_a_payload_is_checked_against_the_handlers_annotation(shop: Shop) -> None:
    shop.handlers.job("book", queue="exec")(book)
    shop.handlers.job("add", queue="exec")(add)
    with Yard(handlers=shop.handlers) as yard:
        with pytest.raises(InvalidPayload, match="numbers: Input should be a valid tuple"):
            # JSON has no tuples, so a worker would refuse it too.
            yard.enqueue("book", {"numbers": (1, 2)})
        assert yard.enqueued == []
        yard.enqueue("add", [1, 2])
        assert yard.run() == 1


def test_with_run_on_wait_a_job_runs_while_its_result_is_awaited(shop: Shop) -> None:
    async def serve(yard: Yard) -> Any:
        job = await yard.aenqueue("work", 7)
        return await job.aresult(timeout=20)

    with Yard(handlers=shop.handlers, run_on_wait=True) as yard:
        assert asyncio.run(serve(yard)) == 7
        assert yard.enqueue("work", 8).result() == 8


def test_with_run_on_wait_the_clock_moves_as_far_as_the_timeout(shop: Shop) -> None:
    with Yard(handlers=shop.handlers, clock=YardClock(START), run_on_wait=True) as yard:
        job = yard.enqueue("work", "fail")
        with pytest.raises(ResultTimeout, match=r"is still retrying; .* its timeout was 35$"):
            job.result(timeout=35)
        assert yard.clock.now() == START + 35 * S
        assert len(shop.ran) == 3
        with pytest.raises(DeadLettered):
            job.result(timeout=60 * S)
        assert yard.clock.now() == START + 60 * S
        with pytest.raises(ResultTimeout, match=r"nothing is left that could run$"):
            job.result(wait_for_replay=True)


def test_with_run_on_wait_a_handler_that_waits_for_another_job_is_refused(shop: Shop) -> None:
    with Yard(handlers=shop.handlers, run_on_wait=True) as yard:

        def impatient(context: JobContext) -> Any:
            return yard.enqueue("awork", 1).result(timeout=5)

        shop.handlers.job("impatient", queue="exec")(lambda payload, context: impatient(context))
        job = yard.enqueue("impatient", {}, policy={"max_retries": 0})
        with pytest.raises(DeadLettered, match="no job runs while a test asks for a result"):
            job.result()


def test_run_one_serves_one_message(yard: Yard, shop: Shop) -> None:
    yard.enqueue("work", 1)
    yard.enqueue("work", 2)
    assert yard.run_one()
    assert shop.ran == [1]
    assert yard.run_one()
    assert not yard.run_one()


def test_a_retry_waits_for_its_time_and_not_longer(yard: Yard, shop: Shop) -> None:
    job = yard.enqueue("work", "fail")
    assert yard.run() == 1
    assert yard.advance(9 * S) == 0
    assert yard.advance(1 * S) == 1
    assert yard.clock.now() == START + 10 * S
    assert job.state() is State.RETRYING
    assert yard.settle() == 2
    assert yard.clock.now() == START + 60 * S
    assert (job.state(), len(shop.ran)) == (State.DEAD_LETTERED, 4)


def test_advance_runs_each_retry_at_its_own_time(yard: Yard) -> None:
    job = yard.enqueue("work", "fail")
    yard.advance(timedelta(hours=1))
    assert yard.clock.now() == START + timedelta(hours=1)
    [letter] = yard.letters
    starts = [note.started_us // 1_000_000 - int(START.timestamp()) for note in letter.attempts]
    assert starts == [0, 10, 30, 60]
    assert yard.events(job)[-1] == "fail"


def test_moving_the_clock_alone_runs_nothing(yard: Yard, shop: Shop) -> None:
    yard.enqueue("work", 1, countdown=5)
    yard.clock.advance(60 * S)
    assert shop.ran == []
    assert yard.run() == 1


def test_a_clock_does_not_go_back(yard: Yard) -> None:
    with pytest.raises(ValueError, match="expected a duration of 0 or more"):
        yard.clock.advance(-1 * S)


def test_a_job_that_ends_in_time_does_not_expire_and_a_late_one_does(yard: Yard) -> None:
    early, late = (yard.enqueue("work", n, countdown=n, expires=10) for n in (10, 11))
    yard.settle()
    assert early.result() == 10
    assert (late.state(), yard.letters[0].code) == (State.DEAD_LETTERED, "expired")


def test_a_key_is_unique_for_its_time(yard: Yard) -> None:
    first = yard.enqueue("work", 1, idempotency_key="k", unique_for=60)
    yard.run()
    yard.clock.advance(59 * S)
    assert not yard.enqueue("work", 2, idempotency_key="k", unique_for=60).created
    yard.clock.advance(1 * S)
    second = yard.enqueue("work", 2, idempotency_key="k", unique_for=60)
    yard.run()
    assert (second.created, second.job_id, second.result()) == (True, first.job_id, 2)


def test_a_result_and_then_the_record_are_forgotten_in_their_time(yard: Yard) -> None:
    job = yard.enqueue("work", 1)
    yard.run()
    yard.clock.advance(timedelta(seconds=yard.settings.result_ttl_s))
    with pytest.raises(NotFound, match="its result has expired"):
        job.result()
    yard.clock.advance(timedelta(seconds=yard.settings.dedupe_window_s))
    assert job.state() is State.NONE


def test_a_result_that_is_not_there_says_how_to_get_it(yard: Yard) -> None:
    with pytest.raises(ResultTimeout, match=r"accepted.*call yard\.run\(\) first"):
        yard.enqueue("work", 1).result(timeout=5)


def test_a_dead_letter_can_be_waited_past_only_by_a_replay(yard: Yard) -> None:
    job = yard.enqueue("work", "fail", policy={"max_retries": 0})
    yard.run()
    with pytest.raises(ResultTimeout, match="dead_lettered"):
        job.result(wait_for_replay=True)
    assert yard.replay(job, payload=3).job_id == job.job_id
    yard.run()
    assert yard.job(job.job_id).result(wait_for_replay=True) == 3


def test_a_worker_that_vanishes_keeps_its_lease_until_it_runs_out(yard: Yard, shop: Shop) -> None:
    job = yard.enqueue("work", 1)
    yard.kill_next_attempt(whole_worker=True)
    yard.run()
    assert (job.state(), shop.ran) == (State.RUNNING, [])
    yard.advance(29 * S)
    assert job.state() is State.RUNNING
    yard.advance(1 * S)
    assert job.result() == 1
    assert yard.events(job) == ["admit", "begin", "begin", "complete"]
    assert yard.records.read(job.job_id).state is State.COMPLETED


def test_what_a_vanished_worker_had_begun_goes_before_what_came_later(
    yard: Yard, shop: Shop
) -> None:
    yard.enqueue("work", 1)
    yard.kill_next_attempt(whole_worker=True)
    yard.run()
    for value in (2, 3):
        yard.enqueue("work", value)
    yard.clock.advance(30 * S)
    yard.run()
    assert shop.ran == [1, 2, 3]


def test_a_message_that_kills_its_worker_before_begin_ends_at_the_delivery_limit(
    yard: Yard, shop: Shop
) -> None:
    limit = yard.settings.delivery_limit
    job = yard.enqueue("work", 1)
    yard.kill_next_attempt(before_begin=True, times=limit)
    assert yard.run() == limit + 1
    assert job.result() == 1
    fatal = yard.enqueue("work", 2)
    yard.kill_next_attempt(before_begin=True, times=limit + 1)
    yard.run()
    [letter] = yard.letters
    assert (letter.job_id, letter.category) == (fatal.job_id, "poison")
    assert letter.evidence == {"counter": "deliveries", "count": limit + 1, "limit": limit}
    assert shop.ran == [1]


def test_a_death_can_be_meant_for_one_job(yard: Yard, shop: Shop) -> None:
    other, meant = yard.enqueue("work", 1), yard.enqueue("work", 2)
    yard.kill_next_attempt(meant, times=3)
    yard.run()
    assert other.state() is State.COMPLETED
    assert yard.letters[0].job_id == meant.job_id
    assert yard.letters[0].category == "poison"
    assert shop.ran == [1]


def test_a_death_behind_the_handler_repeats_it(yard: Yard, shop: Shop) -> None:
    yard.enqueue("awork", 1)
    yard.kill_next_attempt(after_handler=True)
    yard.run()
    job = yard.enqueue("work", 2)
    yard.kill_next_attempt(after_handler=True)
    yard.run()
    assert shop.ran == [2, 2]
    assert job.result() == 2


def test_a_handler_may_kill_its_own_process(yard: Yard, shop: Shop) -> None:
    @shop.handlers.job("fatal", queue="exec")
    def fatal(payload: Any) -> None:
        raise ProcessKilled("signal 11 (SIGSEGV)")

    yard.enqueue("fatal", {})
    yard.run()
    assert yard.letters[0].evidence["last_evidence"] == "signal 11 (SIGSEGV)"


def test_a_long_attempt_keeps_its_lease_while_the_clock_moves(yard: Yard, shop: Shop) -> None:
    seen: list[bool] = []

    @shop.handlers.job("long", queue="exec", time_limit_s=300)
    def long(payload: Any, context: JobContext) -> str:
        yard.clock.advance(200 * S)
        record = yard.records.read(context.job_id)
        seen.append(record.number("lease_until") > yard.clock.now_us())
        return "done"

    job = yard.enqueue("long", {})
    yard.run()
    assert (seen, job.result()) == ([True], "done")


def test_work_that_takes_its_time_meets_its_limits(yard: Yard, shop: Shop) -> None:
    caught: list[str] = []

    @shop.handlers.job("limited", queue="exec", soft_time_limit_s=10, time_limit_s=20)
    def limited(payload: Any) -> None:
        try:
            yard.clock.advance(15 * S)
        except SoftTimeLimitExceeded as error:
            caught.append(f"{type(error).__name__} at {yard.clock.monotonic_s():g}")
        yard.clock.advance(60 * S)

    yard.enqueue("limited", {}, policy={"max_retries": 0})
    yard.run()
    [letter] = yard.letters
    assert caught == ["SoftTimeLimitExceeded at 10"]
    assert (letter.category, letter.error_class) == ("timeout", "TimeLimitExceeded")
    assert yard.clock.monotonic_s() == 20


@pytest.mark.parametrize("queue", ["exec", "plan"])
def test_an_attempt_that_is_overtaken_knows_it_and_changes_nothing(
    yard: Yard, shop: Shop, queue: str
) -> None:
    noted: list[Any] = []

    def overtaken(payload: Any, context: JobContext) -> str:
        if context.attempt > 1:
            noted.append(context.token)
            return "in time"
        yard.overtake()
        noted.extend([context.token, context.cancelled])
        with yard.inbox.begin() as session, pytest.raises(LeaseLost, match="lost its lease"):
            context.once(session)
        return "late"

    async def aovertaken(payload: Any, context: JobContext) -> str:
        return overtaken(payload, context)

    shop.handlers.job("race", queue=queue)(overtaken if queue == "exec" else aovertaken)
    job = yard.enqueue("race", {})
    yard.run()
    assert job.result() == "in time"
    assert yard.events(job) == ["admit", "begin", "begin", "complete"]
    second, first, cancelled = noted
    assert second > first
    assert cancelled


def test_only_a_handler_is_overtaken(yard: Yard) -> None:
    with pytest.raises(TaskyardError, match="may only be called by a handler"):
        yard.overtake()


def test_progress_and_context_tell_of_the_attempt(yard: Yard, shop: Shop) -> None:
    @shop.handlers.job("telling", queue="exec")
    def telling(payload: Any, context: JobContext) -> dict[str, Any]:
        context.progress(0.5, "half way")
        deadline = context.deadline
        assert deadline is not None
        return {
            "progress": yard.job(context.job_id).progress(),
            "limit_s": (deadline - yard.clock.now()).total_seconds(),
            "cancelled": context.cancelled,
            "attempt": context.attempt,
        }

    job = yard.enqueue("telling", {})
    yard.run()
    assert job.result() == {
        "progress": {"fraction": 0.5, "note": "half way"},
        "limit_s": 300,
        "cancelled": False,
        "attempt": 1,
    }


def test_the_inbox_forgets_what_its_transaction_did_not_end(yard: Yard, shop: Shop) -> None:
    applied: list[int] = []

    @shop.handlers.job("effect", queue="exec", policy={**LINEAR, "jitter": False})
    def effect(payload: Any, context: JobContext) -> None:
        with yard.inbox.begin() as session:
            if context.once(session):
                applied.append(context.attempt)
            assert not context.once(session)
            if context.attempt == 1:
                raise CodedError("timeout", "rolled back")

    yard.enqueue("effect", {})
    yard.kill_next_attempt()
    yard.settle()
    assert applied == [2]


def test_a_handler_may_enqueue_and_run_serves_that_too(yard: Yard, shop: Shop) -> None:
    @shop.handlers.job("parent", queue="exec")
    def parent(payload: Any) -> None:
        yard.enqueue("work", "child")

    yard.enqueue("parent", {})
    assert yard.run() == 2
    assert shop.ran == ["child"]


def test_a_handler_cannot_run_its_yard(yard: Yard, shop: Shop) -> None:
    @shop.handlers.job("nested", queue="exec")
    def nested(payload: Any) -> None:
        yard.run()

    yard.enqueue("nested", {}, policy={"max_retries": 0})
    yard.run()
    assert "a handler cannot run the yard that runs it" in yard.letters[0].error_message


def test_a_job_that_enqueues_itself_for_ever_is_told(
    yard: Yard, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskyard.testing.yard.BUSIEST", 5)

    @shop.handlers.job("again", queue="exec")
    def again(payload: Any) -> None:
        yard.enqueue("again", {})

    yard.enqueue("again", {})
    with pytest.raises(TaskyardError, match="still busy after 5 messages"):
        yard.run()


def test_an_async_test_enqueues_and_runs_async_handlers(yard: Yard) -> None:
    async def scenario() -> Any:
        job = await yard.aenqueue("awork", 5, priority=4)
        with pytest.raises(ResultTimeout, match=r"call yard\.run\(\) first"):
            await job.aresult(timeout=30)
        yard.run()
        return await job.aresult()

    assert asyncio.run(scenario()) == 5
    assert yard.enqueued[0].priority == 4


def test_a_client_may_be_collected_while_a_loop_runs(shop: Shop) -> None:
    """The loop of its handlers cannot run its last steps in this thread then."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def remember(payload: Any) -> None:
        loops.append(asyncio.get_running_loop())

    def use_one() -> None:
        shop.handlers.job("remember", queue="plan", policy=LINEAR)(remember)
        with Yard(handlers=shop.handlers) as yard:
            yard.enqueue("remember", 1)
            yard.run()

    async def scenario() -> None:
        use_one()
        gc.collect()

    asyncio.run(scenario())
    assert [loop.is_closed() for loop in loops] == [True]


def test_a_job_nobody_delivered_cannot_be_delivered_again(yard: Yard) -> None:
    job = yard.enqueue("work", 1)
    with pytest.raises(NotFound, match=r"no message of job .* was delivered yet"):
        yard.redeliver(job)


def test_a_completed_job_survives_any_number_of_deliveries(yard: Yard, shop: Shop) -> None:
    job = yard.enqueue("work", 1)
    yard.run()
    for _ in range(yard.settings.delivery_limit + 2):
        yard.redeliver(job)
        yard.run()
    assert (shop.ran, yard.letters, job.result()) == ([1], [], 1)


def test_a_message_older_than_the_memory_of_its_job_is_no_second_run(
    yard: Yard, shop: Shop
) -> None:
    job = yard.enqueue("work", "fail", policy={"max_retries": 1})
    yard.settle()
    yard.replay(job, payload=2)
    yard.run()
    yard.clock.advance(timedelta(seconds=yard.settings.dedupe_window_s + 1))
    assert job.state() is State.NONE
    yard.redeliver(job)
    yard.run()
    assert yard.letters[-1].category == "unknown_history"
    assert shop.ran == ["fail", "fail", 2]


def test_a_letter_that_is_not_there_is_named(yard: Yard) -> None:
    with pytest.raises(NotFound, match="there is no dead letter with the id 'nobody'"):
        yard.replay("nobody")


def test_a_replay_of_a_job_that_came_to_life_otherwise_is_refused(yard: Yard) -> None:
    job = yard.enqueue("work", "fail", policy={"max_retries": 0})
    yard.run()
    letter = yard.letters[0]
    yard.replay(letter)
    with pytest.raises(Refused, match="already replayed"):
        yard.replay(job)


def test_a_handle_of_an_unknown_job_knows_nothing(yard: Yard) -> None:
    job = yard.job("nobody")
    assert job.state() is State.NONE
    with pytest.raises(NotFound, match="there is no record of job nobody"):
        job.result()


def test_a_yard_reads_no_variables_and_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKYARD_LEASE_S", "99")
    with Yard() as made:
        assert made.settings.lease_s == Settings().lease_s
        assert "invalid" in made.settings.need_redis_url()


def test_the_same_seed_gives_the_same_jitter() -> None:
    def waits(seed: int) -> list[int]:
        shop = Shop()
        policy = {"max_retries": 3, "base_delay_ms": 5_000}
        with Yard(handlers=shop.handlers, clock=YardClock(START), seed=seed) as made:
            made.enqueue("work", "fail", policy={**policy, "jitter": True})
            made.settle()
            return [note.started_us for note in made.letters[0].attempts]

    assert waits(1) == waits(1) != waits(2)


def test_an_ended_job_says_how(yard: Yard) -> None:
    job = yard.enqueue("work", 1)
    yard.records.client.hset(yard.records.keys.record(job.job_id), "state", State.CANCELLED)
    with pytest.raises(JobFailed, match="is cancelled"):
        job.result()
    yard.run()
    assert job.state() is State.CANCELLED


@pytest.mark.parametrize("end", [pytest.fail, pytest.skip, pytest.exit])
def test_what_ends_the_test_is_no_failure_of_the_handler(yard: Yard, shop: Shop, end: Any) -> None:
    @shop.handlers.job("ending", queue="exec")
    def ending(payload: Any) -> None:
        end("from inside the handler")

    yard.enqueue("ending", {})
    with pytest.raises(end.Exception, match="from inside the handler"):
        yard.run()
