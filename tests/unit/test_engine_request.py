"""The main process' side of a death: what follows where it cannot be told, or was no death."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import Terminated, WorkerLostError
from celery import Celery
from celery.worker import state as worker_state
from redis.exceptions import RedisError

from taskyard.access import Action
from taskyard.access.broadcast_calls import UNVERIFIED
from taskyard.clock import SYSTEM_CLOCK
from taskyard.engine.pool_process_memory import ProcessMemory
from taskyard.engine.ports import NoOutcome, OverTime, Report, Reported, Unanswered
from taskyard.engine.request import JobRequest
from taskyard.engine.revocation import Revocation
from taskyard.engine.revoked_stamps import RevokedStamps
from taskyard.engine.source_queue import HOLDER
from taskyard.install.protected_request import ProtectedRequest
from taskyard.jobs import Catalogue
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.jobs.states import State
from taskyard.records import Run
from taskyard.runner import Rules, death_causes
from taskyard.settings import Settings
from taskyard.testing.clock import YardClock
from taskyard.testing.records import MemoryRecords
from taskyard.wire.failure_backoff import FailureBackoff
from taskyard.wire.stamp_header import Stamp

SETTINGS = Settings(redis_url="redis://nowhere:1/0", death_limit=1)
STAMP = Stamp(5)


def nothing() -> None:
    """A task's body."""


class Backend:
    """A result backend that notes what it is told, or is away."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.reported: list[str] = []

    def mark_as_failure(self, *_: Any, **__: Any) -> None:
        self._report("failure")

    def mark_as_revoked(self, *_: Any, **__: Any) -> None:
        self._report("revoked")

    def _report(self, what: str) -> None:
        if self.error is not None:
            raise self.error
        self.reported.append(what)


class ContextHarness:
    """What a request needs of one, without servers."""

    def __init__(self) -> None:
        self.settings = SETTINGS
        self.records = MemoryRecords(YardClock(datetime.now(UTC)), SETTINGS)
        self.rules = Rules(Catalogue({}), random.Random(0))  # noqa: S311 - jitter is no secret
        self.posted: list[Any] = []
        self.published: list[Any] = []
        self.letters = SimpleNamespace(post=self.posted.append)
        self.memory = ProcessMemory(SYSTEM_CLOCK)
        self.backoff = FailureBackoff()
        self.revoked_stamps = RevokedStamps(SYSTEM_CLOCK)
        self.ports: Any = None
        publish = lambda raw, **_: self.published.append(raw)  # noqa: E731 - two names, one act
        self.publisher = SimpleNamespace(publish=publish, publish_later=publish)

    def source(self, _message: Any) -> str:
        return "work"

    def home(self, _record: Any, _message: Any) -> str:
        return "work"


class Desk:
    """One delivery of a job of one task, and what became of its message."""

    def __init__(self, app: Celery, kind: type[JobRequest]) -> None:
        self.yard, self.backend, self.settlements = ContextHarness(), Backend(), []
        task = app.task(name="t", shared=False, acks_late=True, yard=self.yard)(nothing)
        task.backend = self.backend
        message = SimpleNamespace(
            headers={"id": "job-1", "task": "t", "taskyard": STAMP.header()},
            body=b"[[], {}, {}]",
            payload=[[], {}, {}],
            properties={},
            delivery_info={"routing_key": "work"},
            content_type="application/json",
            content_encoding="utf-8",
        )
        self.request = kind(
            message,
            app=app,
            task=task,
            on_ack=lambda *_: self.settlements.append("acknowledged"),
            on_reject=lambda *_: self.settlements.append("back" if _[-1] else "dropped"),
        )

    def begin(self) -> Run:
        run = self.yard.records.attempts.begin(
            "job-1",
            STAMP,
            holder=self.request._request_dict[HOLDER],
            worker="w",
            job_type="t",
            queue="work",
        )
        assert isinstance(run, Run)
        return run

    def lose_child(self, error: Exception | None = None) -> None:
        try:
            raise error or WorkerLostError("signal 9 (SIGKILL)")  # Celery wants one raised
        except (WorkerLostError, Terminated):
            self.request.on_failure(ExceptionInfo())

    def terminate(self) -> None:
        self.request._announce_revoked("terminated", True, "9", False)

    @property
    def state(self) -> str:
        return self.yard.records.read("job-1").state


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery("shop", broker="redis://nowhere:1/0", set_as_current=False) as made:
        yield made


@pytest.fixture(params=[JobRequest, ProtectedRequest])
def desk(request: pytest.FixtureRequest, app: Celery) -> Desk:
    return Desk(app, request.param)


@pytest.fixture
def protected(app: Celery) -> Desk:
    return Desk(app, ProtectedRequest)


def test_a_death_is_told_then_its_letter_posted_then_its_message_acknowledged(desk: Desk) -> None:
    desk.begin()
    desk.lose_child()
    assert (desk.backend.reported, len(desk.yard.posted)) == (["failure"], 1)
    assert desk.settlements == ["acknowledged"]


def test_a_process_that_the_pool_takes_for_terminated_is_lost_where_nobody_terminated_it(
    desk: Desk,
) -> None:
    desk.begin()
    desk.lose_child(Terminated(-9))
    (letter,) = desk.yard.posted
    assert (letter.category, letter.evidence["counter"]) == ("poison", "deaths")
    assert desk.settlements == ["acknowledged"]


@pytest.mark.parametrize("error", [RedisError("away"), OSError("a backend of another kind")])
def test_a_death_that_cannot_be_told_sends_its_message_back(
    desk: Desk, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    desk.begin()
    desk.backend.error = error
    with caplog.at_level(logging.WARNING):
        desk.lose_child()
    assert (desk.settlements, desk.state) == (["back"], State.DEAD_LETTERED)
    reported = [r for r in caplog.records if vars(r).get("action") == "death_not_told"]
    assert [str(error) in record.getMessage() for record in reported] == [True]


@pytest.mark.parametrize(
    ("lease_s", "settlements"), [(30.0, list[str]()), (3_600.0, ["acknowledged"])]
)
def test_only_a_short_lease_is_awaited_in_the_worker(
    desk: Desk, lease_s: float, settlements: list[str]
) -> None:
    """RabbitMQ closes the channel of a worker that holds a message for long."""
    held: list[float] = []
    desk.yard.ports = SimpleNamespace(
        messages=SimpleNamespace(hold=lambda _message, _give_back, wait_s, **_: held.append(wait_s))
    )
    leased = SETTINGS.model_copy(update={"lease_s": lease_s})
    desk.yard.records.settings = desk.yard.records.attempts.settings = leased
    desk.yard.records.attempts.begin(
        "job-1", STAMP, holder="h", worker="w", process="p", job_type="t", queue="work"
    )
    desk.request.message.delivery_info["redelivered"] = True
    desk.request._settling.dead_letter(death_causes.revoked())
    assert (desk.settlements, len(desk.yard.published)) == (settlements, len(settlements))
    assert len(held) == 1 - len(settlements)


def test_an_id_that_celery_remembers_as_revoked_runs(desk: Desk) -> None:
    worker_state.revoked.add(desk.request.id)
    try:
        assert not desk.request.revoked()
    finally:
        worker_state.revoked.discard(desk.request.id)
    assert (desk.settlements, desk.yard.posted) == ([], [])


def test_an_expired_message_is_a_letter_and_celery_does_not_remember_its_id(desk: Desk) -> None:
    desk.request.expires = datetime(2001, 1, 1, tzinfo=UTC)
    assert desk.request.revoked()
    assert [letter.code for letter in desk.yard.posted] == ["expired"]
    assert "job-1" not in worker_state.revoked


@pytest.fixture
def stamped(desk: Desk) -> Desk:
    """A delivery with a stamp that a command has revoked at this worker."""
    desk.request._request_dict |= {"stamped_headers": ["wave"], "stamps": {"wave": ["7"]}}
    revocation = Revocation(Action.CANCEL_REQUEST, "r-1", UNVERIFIED)
    desk.yard.revoked_stamps.add({"wave": "7"}, revocation)
    return desk


def test_a_message_with_a_revoked_stamp_ends_as_cancelled(stamped: Desk) -> None:
    assert stamped.request.revoked()
    assert (stamped.state, stamped.settlements) == (State.CANCELLED, ["acknowledged"])
    assert (stamped.backend.reported, stamped.yard.posted) == (["revoked"], [])
    assert stamped.request.revoked(), "it stays revoked for whoever asks again"


def test_a_replayed_job_runs_whatever_its_stamps(stamped: Desk) -> None:
    stamped.request._settling.stamp = Stamp(5, generation=1)
    assert not stamped.request.revoked()


def test_a_dead_letter_stays_whatever_the_stamps_of_its_message(stamped: Desk) -> None:
    stamped.request._settling.dead_letter(death_causes.revoked())
    assert not stamped.request.revoked()
    assert stamped.state == State.DEAD_LETTERED


def test_a_revoked_stamp_waits_for_a_redis_that_does_not_answer(
    stamped: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise RedisError("away")

    monkeypatch.setattr(stamped.yard.records, "read", away)
    assert stamped.request.revoked()
    assert (stamped.settlements, stamped.yard.posted) == (["back"], [])


def test_a_terminated_attempt_is_a_letter_and_revoked_for_celery(protected: Desk) -> None:
    protected.begin()
    protected.terminate()
    assert [letter.code for letter in protected.yard.posted] == ["terminated"]
    assert (protected.backend.reported, protected.settlements) == (["revoked"], ["acknowledged"])


def test_terminated_before_it_began_is_a_letter_too(protected: Desk) -> None:
    admitted = protected.yard.records.admit(
        "job-1", job_type="t", queue="work", priority=0, unique_for_s=0
    )
    protected.request._settling.stamp = Stamp(admitted.epoch)
    protected.terminate()
    assert [letter.code for letter in protected.yard.posted] == ["terminated"]
    assert (protected.backend.reported, protected.settlements) == (["revoked"], ["acknowledged"])


def test_a_retry_of_the_first_protocol_keeps_its_stamp_for_the_child(app: Celery) -> None:
    fields = {"id": "job-1", "task": "t", "args": [], "kwargs": {}}
    message = SimpleNamespace(
        headers={"taskyard": STAMP.header()}, payload=fields, properties={}, delivery_info={}
    )
    task = app.task(name="t", shared=False, yard=ContextHarness())(nothing)
    first = JobRequest(message, app=app, task=task, headers=fields, body=([], {}, {}), decoded=True)
    assert first._request_dict["taskyard"] == STAMP.header()


def test_overtime_before_anything_was_recorded_decides_nothing(desk: Desk) -> None:
    desk.request.on_timeout(soft=False, timeout=1)
    assert (desk.state, desk.settlements, desk.yard.posted) == (State.NONE, ["back"], [])


def test_terminated_before_anything_was_recorded_is_a_letter_that_knows_its_type(
    protected: Desk,
) -> None:
    protected.terminate()
    [letter] = protected.yard.posted
    assert (letter.job_type, letter.queue, letter.epoch) == ("t", "work", STAMP.epoch)


def test_terminated_just_after_its_retry_was_decided_the_retry_is_published(
    protected: Desk,
) -> None:
    run = protected.begin()
    protected.yard.records.attempts.finish(
        "job-1", Decision.RETRYING, epoch=5, generation=0, seq=0, token=run.token, delay_s=9.0
    )
    protected.terminate()
    assert (protected.state, len(protected.yard.published)) == (State.RETRYING, 1)
    assert (protected.yard.posted, protected.backend.reported) == ([], [])
    assert protected.settlements == ["acknowledged"]


def test_terminated_just_after_it_completed_it_stays_completed(protected: Desk) -> None:
    run = protected.begin()
    protected.yard.records.attempts.finish(
        "job-1", Decision.COMPLETED, epoch=5, generation=0, seq=0, token=run.token
    )
    protected.terminate()
    assert (protected.state, protected.settlements) == (State.COMPLETED, ["back"])
    assert (protected.yard.posted, protected.backend.reported) == ([], [])


def test_terminated_while_redis_is_away_the_message_goes_back(
    protected: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    protected.begin()

    def away(*_: Any, **__: Any) -> None:
        raise RedisError("away")

    monkeypatch.setattr(protected.yard.records.attempts, "finish", away)
    protected.terminate()
    assert (protected.settlements, protected.backend.reported) == (["back"], [])


@pytest.mark.parametrize(
    "again",
    [
        NoOutcome("seen twice"),
        OverTime("seen twice"),
        Unanswered(RedisError("away")),
        Reported(None),
    ],
)
def test_a_second_report_of_a_settled_delivery_changes_nothing(desk: Desk, again: Report) -> None:
    desk.begin()
    desk.lose_child()
    letters, state = list(desk.yard.posted), desk.state
    desk.request._settling.report(again)
    assert (desk.settlements, desk.state) == (["acknowledged"], state)
    assert [letter.letter_id for letter in desk.yard.posted] == [
        letter.letter_id for letter in letters
    ]
