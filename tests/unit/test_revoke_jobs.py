"""One job that a control command names: whose verb, within which bounds, and what came between."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from taskyard.access import Action, Identity, Role
from taskyard.access.broadcast_calls import UNVERIFIED
from taskyard.engine import revoke_jobs
from taskyard.engine.revoke_jobs import DENIED, revoke_job
from taskyard.engine.revoked_stamps import Revocation
from taskyard.jobs import Catalogue
from taskyard.jobs.states import State
from taskyard.records import Stop
from taskyard.runner import death_causes
from taskyard.runner.stored_decision import death_of
from taskyard.settings import Settings
from taskyard.testing.clock import YardClock
from taskyard.testing.records import MemoryRecords
from taskyard.wire.stamp_header import Stamp

JOB = "job-1"
CANCEL = Revocation(Action.CANCEL_REQUEST, "r-1", UNVERIFIED)
ABORT = Revocation(Action.ABORT_REQUEST, "r-2", UNVERIFIED)


class Stage:
    """The records of a worker without servers, and which attempts it has asked to stop."""

    def __init__(self) -> None:
        self.records = MemoryRecords(YardClock(datetime.now(UTC)), Settings())
        self.asked: list[tuple[str, Stop]] = []
        ask = lambda worker, stop: self.asked.append((worker, stop))  # noqa: E731 - one call
        self.records.stops = SimpleNamespace(ask=ask)  # type: ignore[assignment]
        self.context: Any = SimpleNamespace(
            records=self.records, catalogue=Catalogue({}), source=lambda _message: "exec"
        )

    def admit(self) -> Stamp:
        admitted = self.records.admit(JOB, job_type="t", queue="exec", priority=0, unique_for_s=0)
        return Stamp(admitted.epoch)

    def begin(self) -> None:
        self.records.attempts.begin(
            JOB, self.admit(), holder="h", worker="w@host", process="7", job_type="t", queue="exec"
        )

    def dead_letter(self) -> None:
        self.records.attempts.dead_letter(
            JOB, self.admit(), job_type="t", queue="exec", **death_of(death_causes.rejected())
        )

    @property
    def state(self) -> State:
        return self.records.read(JOB).state


@pytest.fixture
def stage() -> Stage:
    return Stage()


def signer(**bounds: Any) -> Revocation:
    who = Identity("anna@example.com", via="test", role=Role.OPERATOR, **bounds)
    return Revocation(Action.CANCEL_REQUEST, "r-3", who.subject, who)


def test_a_waiting_job_is_ended_and_a_repeat_gets_the_same_answer(stage: Stage) -> None:
    stage.admit()
    for _ in range(2):
        outcome = revoke_job(stage.context, CANCEL, JOB)
        assert (outcome.short, outcome.applied, outcome.ended) == (
            "cancelled", True, State.CANCELLED,
        )  # fmt: skip
    assert [event["event"] for event in stage.records.events(JOB)] == ["admit", "cancel"]


def test_a_running_job_is_asked_to_stop_or_aborted_and_its_attempt_stopped(stage: Stage) -> None:
    stage.begin()
    token = stage.records.read(JOB).number("token")
    outcome = revoke_job(stage.context, CANCEL, JOB)
    assert (outcome.short, outcome.ended, stage.state) == ("asked_to_stop", None, State.RUNNING)
    assert stage.asked == []
    assert revoke_job(stage.context, ABORT, JOB).ended is State.ABORTED
    assert stage.asked == [("w@host", Stop(JOB, token, "r-2"))]


def test_a_job_without_a_record_gets_one_with_what_the_worker_holds(stage: Stage) -> None:
    held = SimpleNamespace(type="t", message=object())
    assert revoke_job(stage.context, CANCEL, JOB, held).applied
    record = stage.records.read(JOB)
    assert (record.state, record.job_type, record.queue) == (State.CANCELLED, "t", "exec")


def test_a_dead_letter_stays(stage: Stage) -> None:
    stage.dead_letter()
    for revocation in (CANCEL, ABORT):
        outcome = revoke_job(stage.context, revocation, JOB)
        assert (outcome.short, outcome.applied) == ("refused: dead_lettered", False)
        assert f"taskyard jobs cancel {JOB}" in outcome.text
    assert stage.state is State.DEAD_LETTERED


def test_a_signer_acts_within_the_bounds_and_not_outside(stage: Stage) -> None:
    stage.admit()
    for bounds in ({"queues": frozenset({"plan"})}, {"domains": frozenset({"shop"})}):
        outcome = revoke_job(stage.context, signer(**bounds), JOB)
        assert (outcome.short, stage.state) == (DENIED, State.ACCEPTED)
        assert "is bound to" in outcome.text
    assert revoke_job(stage.context, signer(queues=frozenset({"exec"})), JOB).applied


def test_a_bound_signer_does_not_forbid_an_id_that_nothing_knows(stage: Stage) -> None:
    outcome = revoke_job(stage.context, signer(queues=frozenset({"exec"})), "never-seen")
    assert outcome.short == DENIED
    assert stage.records.read("never-seen").state is State.NONE


def test_a_job_that_moves_meanwhile_is_looked_at_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.admit()
    looks: list[int] = []
    look_at = revoke_jobs.look_at

    def look(*arguments: Any) -> Any:
        seen = look_at(*arguments)
        looks.append(1)
        if len(looks) == 1:
            stage.begin()
        return seen

    monkeypatch.setattr(revoke_jobs, "look_at", look)
    assert revoke_job(stage.context, CANCEL, JOB).short == "asked_to_stop"
    assert len(looks) == 2


def test_a_job_that_moves_all_the_time_is_refused(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.admit()
    seen = revoke_jobs.look_at(stage.context, JOB)
    stage.begin()
    monkeypatch.setattr(revoke_jobs, "look_at", lambda *_: seen)
    outcome = revoke_job(stage.context, CANCEL, JOB)
    assert outcome.short == "refused: version"
    assert "it has changed meanwhile" in outcome.text
