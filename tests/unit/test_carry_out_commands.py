"""One control command at one worker: who sent it, may they, and what a silent Redis changes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import WorkerShutdown
from redis.exceptions import ConnectionError as RedisLost

from support.signing import Keeper
from taskyard.access import Action, Identity, Role
from taskyard.access.broadcast_calls import UNVERIFIED, call_of_command
from taskyard.access.credential import sign
from taskyard.access.verify_credential import Verifier
from taskyard.clock import SYSTEM_CLOCK
from taskyard.engine.carry_out_commands import CommandReceived, carry_out
from taskyard.engine.revoked_stamps import RevokedStamps
from taskyard.records.command_events import CommandEvent, Opened
from taskyard.records.denied_broadcast_reports import DeniedKind
from taskyard.settings import Settings

ONE = "one@host"


class Events:
    """What was appended to the stream; it refuses where a test says so."""

    def __init__(self) -> None:
        self.appended: list[CommandEvent] = []
        self.opened = Opened(True, "")
        self.refuses: Exception | None = None

    def request(self, event: CommandEvent, _request_id: str) -> Opened:
        self.answer(event, "")
        return self.opened

    def answer(self, event: CommandEvent, _request_id: str) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.appended.append(event)

    @property
    def outcomes(self) -> list[str]:
        return [event.outcome or "requested" for event in self.appended]


class Stage:
    """One worker with a key that it knows; `done` is what Celery was asked to do."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.keeper, self.events = Keeper(folder), Events()
        self.settings = Settings(public_keys=self.keeper.ring, **settings)
        self.denied: list[DeniedKind] = []
        self.done: list[dict[str, Any]] = []
        self.reply: Any = {"ok": "done"}
        broadcasts = SimpleNamespace(
            verifier=Verifier(self.settings),
            clock=SYSTEM_CLOCK,
            denied=SimpleNamespace(add=lambda _worker, kind: self.denied.append(kind)),
        )
        self.context: Any = SimpleNamespace(
            settings=self.settings,
            broadcasts=broadcasts,
            command_events=self.events,
            only_jobs=True,
            has_jobs=True,
            owns=lambda _: True,
            revoked_stamps=RevokedStamps(SYSTEM_CLOCK),
        )

    def signed(self, name: str, verb: Action, who: Identity | None = None, **given: Any) -> str:
        call = call_of_command("taskyard", verb, name, given)
        identity = who or self.keeper.identity
        now, life = SYSTEM_CLOCK.now(), timedelta(minutes=10)
        return sign(self.keeper.key, identity, call, now=now, life=life)

    def send(self, command: str, credential: object = None, /, **given: Any) -> Any:
        received = CommandReceived(command, given, credential, "a" * 64, "")
        return carry_out(self.context, ONE, received, self._run)

    def _run(self, arguments: Any) -> Any:
        self.done.append(dict(arguments))
        if isinstance(self.reply, BaseException):
            raise self.reply
        return self.reply


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "keys")


def test_a_command_without_a_credential_is_carried_out_as_unverified(stage: Stage) -> None:
    assert stage.send("pool_grow", n=2) == {"ok": "done"}
    assert (stage.done, stage.events.outcomes) == ([{"n": 2}], ["requested", "applied"])
    assert {event.credential for event in stage.events.appended} == {""}


def test_what_celery_refuses_is_refused_in_the_audit_log(stage: Stage) -> None:
    stage.reply = {"error": "no such task"}
    assert stage.send("rate_limit", task_name="x", rate_limit="1/s") == stage.reply
    stage.reply = ValueError("Autoscale not enabled")
    with pytest.raises(ValueError, match="Autoscale not enabled"):
        stage.send("autoscale", max=1, min=1)
    refused = [text for text in stage.events.outcomes if text != "requested"]
    assert refused == ["refused: no such task", "refused: Autoscale not enabled"]


def test_a_worker_that_ends_writes_the_outcome_before(stage: Stage) -> None:
    stage.reply = WorkerShutdown(0)
    with pytest.raises(WorkerShutdown):
        stage.send("shutdown")
    assert stage.events.outcomes == ["requested", "applied"]


def test_while_redis_is_silent_a_worker_can_be_ended_and_no_job(stage: Stage) -> None:
    stage.events.refuses = RedisLost("gone")
    assert stage.send("shutdown") == {"ok": "done"}
    assert stage.send("revoke", task_id="a")["denied"] == "not_audited"
    credential = stage.signed("pool_grow", Action.FLOWER_GROW_POOL, n=1)
    assert stage.send("pool_grow", credential, n=1)["denied"] == "not_audited"
    assert stage.done == [{}]


def test_a_fleet_of_signed_commands_denies_and_counts_the_others(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "keys", control_commands="signed")
    answer = stage.send("shutdown")
    assert answer["denied"] == "unsigned"
    assert "Sign it: taskyard sign shutdown" in answer["error"]
    assert stage.denied == [DeniedKind(Action.FLOWER_SHUTDOWN_WORKER, "unsigned")]
    credential = stage.signed("pool_grow", Action.FLOWER_GROW_POOL, n=1)
    assert stage.send("pool_grow", credential, n=1) == {"ok": "done"}
    assert (stage.done, stage.events.outcomes) == ([{"n": 1}], ["requested", "applied"])


def test_a_credential_that_does_not_hold_is_denied_whatever_the_setting(stage: Stage) -> None:
    credential = stage.signed("pool_grow", Action.FLOWER_GROW_POOL, n=1)
    for command, given, code in (
        ("pool_grow", {"n": 9}, "wrong_arguments"),
        ("pool_shrink", {"n": 1}, "wrong_verb"),
    ):
        assert stage.send(command, credential, **given)["denied"] == code
    assert stage.send("pool_grow", "v1.x", n=1)["denied"] == "malformed"
    assert stage.send("pool_grow", 7, n=1)["denied"] == "malformed"
    assert [kind.code for kind in stage.denied] == [
        "wrong_arguments", "wrong_verb", "malformed", "malformed",
    ]  # fmt: skip
    assert (stage.done, stage.events.appended) == ([], [])


def test_a_copy_of_a_signed_command_is_done_once_by_a_worker(stage: Stage) -> None:
    credential = stage.signed("pool_grow", Action.FLOWER_GROW_POOL, n=1)
    stage.send("pool_grow", credential, n=1)
    stage.events.opened = Opened(False, "applied")
    answer = stage.send("pool_grow", credential, n=1)
    assert answer == {"ok": "this worker has taken this pool_grow already"}
    assert stage.done == [{"n": 1}]


@pytest.mark.parametrize(
    ("command", "verb", "given", "who"),
    [
        ("shutdown", Action.FLOWER_SHUTDOWN_WORKER, {}, {}),
        ("pool_grow", Action.FLOWER_GROW_POOL, {"n": 1}, {"queues": frozenset({"exec"})}),
        ("add_consumer", Action.FLOWER_ADD_CONSUMER, {"queue": "b"}, {"queues": frozenset({"a"})}),
        ("revoke", Action.CANCEL_REQUEST, {"task_id": "a"}, {"role": Role.VIEWER}),
    ],
)
def test_a_signer_without_the_right_is_denied_with_a_row(
    stage: Stage, command: str, verb: Action, given: dict[str, Any], who: dict[str, Any]
) -> None:
    operator = {"subject": stage.keeper.subject, "via": "test", "role": Role.OPERATOR}
    credential = stage.signed(command, verb, Identity(**{**operator, **who}), **given)
    assert stage.send(command, credential, **given)["denied"] == "not_permitted"
    assert (stage.done, stage.events.outcomes) == ([], ["denied"])


def test_a_signer_with_bounds_acts_within_them(stage: Stage) -> None:
    queues = frozenset({"a"})
    who = Identity(stage.keeper.subject, via="test", role=Role.OPERATOR, queues=queues)
    credential = stage.signed("add_consumer", Action.FLOWER_ADD_CONSUMER, who, queue="a")
    assert stage.send("add_consumer", credential, queue="a") == {"ok": "done"}
    assert stage.events.outcomes == ["requested", "applied"]


def test_a_late_worker_answers_with_the_outcome_and_ends_no_job(stage: Stage) -> None:
    for outcome, key in (("applied", "ok"), ("refused: job a is completed", "error")):
        stage.events.opened = Opened(True, outcome)
        assert stage.send("revoke", task_id="a") == {key: outcome}
    assert stage.events.outcomes == ["requested", "requested"]


def test_the_log_names_the_sender_and_the_outcome(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.send("pool_grow", n=2)
    assert f"the control command pool_grow by {UNVERIFIED}: applied" in caplog.text
