"""A partial answer is never a wrong one: what a silent server knows is missing."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from taskyard.control.explain import CAUSES, CauseKind, Server
from taskyard.control.explain import CauseKind as K
from taskyard.control.explain.explain_job import explanation_of
from taskyard.control.explain.job_facts import (
    Facts,
    FromBroker,
    FromPostgres,
    FromRecords,
    OpenRequest,
    Where,
)
from taskyard.inspection.queue_counts import QueueState
from taskyard.inspection.queue_position import QueuePlace
from taskyard.records import Record
from taskyard.settings import Settings
from taskyard.switches import Mode, SwitchField, SwitchState

NOW_US = 1_760_000_000_000_000
AT = datetime(2025, 10, 9, tzinfo=UTC)
URL = "redis://127.0.0.1:6379/0"
SILENT = {
    Server.RECORDS: K.RECORDS_SILENT,
    Server.BROKER: K.BROKER_SILENT,
    Server.POSTGRES: K.POSTGRES_SILENT,
}
# What is said in the place of a part that is missing, and is true all the same.
INSTEAD = {K.LEDGER_ONLY, K.REROUTED, K.LETTER_UNREAD, *SILENT.values()}


def record(state: str, **fields: object) -> Record:
    own = {"state": state, "type": "exec_act", "queue": "exec", "epoch": NOW_US - 5, "admitted": 1}
    texts = {name: str(value) for name, value in {**own, **fields}.items()}
    return Record("j", {} if state == "none" else texts)


def row(state: str) -> dict[str, Any]:
    named = {"job_type": "exec_act", "queue": "exec", "domain": None, "priority": 3}
    ids = {"letter_id": uuid.UUID(int=7), "code": "timeout"}
    return {"state": state, "updated_at": AT, "ended_at": AT, **named, **ids}


def waiting(where: Where = Where.QUEUE, **more: Any) -> FromBroker:
    state = QueueState("exec", 5, more.pop("consumers", 2))
    return FromBroker(where, "exec", state, **more)


SWITCH = {SwitchField.pause("exec"): SwitchState(Mode.HOLD, 2, 1, operator="ada", reason="why")}
REQUEST = OpenRequest(uuid.UUID(int=1), "cancel", AT, "ada", "a reason")
LETTER = {
    "id": uuid.UUID(int=7),
    "failure_category": "timeout",
    "failure_code": "timeout",
    "failure_reason": "slow",
    "decided_at": AT,
    "status": "pending",
}
PLACE = QueuePlace(3, 5)
SCENES: dict[str, tuple[FromRecords, FromBroker | None, FromPostgres]] = {
    "queued": (
        FromRecords(NOW_US, record("accepted")),
        waiting(place=PLACE, held=2),
        FromPostgres(row("accepted")),
    ),
    "paused": (
        FromRecords(NOW_US, record("accepted"), switches=SWITCH),
        waiting(place=PLACE, consumers=0),
        FromPostgres(row("accepted")),
    ),
    "unserved": (
        FromRecords(NOW_US, record("accepted")),
        waiting(Where.RABBITMQ, consumers=0),
        FromPostgres(row("accepted"), requests=(REQUEST,), gate="a restore"),
    ),
    "retrying": (
        FromRecords(NOW_US, record("retrying", due=NOW_US + 5_000_000, begins=1)),
        waiting(Where.DELAYED, due_us=NOW_US + 5_000_000),
        FromPostgres(row("retrying")),
    ),
    "running": (
        FromRecords(
            NOW_US,
            record("running", worker="w@h", lease_until=NOW_US + 9, started=NOW_US, begins=1),
            worker_lives=True,
        ),
        waiting(Where.LIVE_WORKER),
        FromPostgres(row("running")),
    ),
    "rerouted": (
        FromRecords(NOW_US, record("rerouted", verb="r")),
        waiting(Where.RABBITMQ),
        FromPostgres(row("rerouted"), verbs={"r": ("ada", "a reason")}, old_queue="plan"),
    ),
    "rerouted and unread": (
        FromRecords(NOW_US, record("rerouted", verb="r")),
        waiting(Where.RABBITMQ, old=QueueState("plan", 1, 0)),
        FromPostgres(row("rerouted"), verbs={"r": ("ada", "a reason")}, old_queue="plan"),
    ),
    "lost": (
        FromRecords(NOW_US, record("accepted")),
        waiting(Where.NOWHERE),
        FromPostgres(row("accepted")),
    ),
    "letter": (
        FromRecords(NOW_US, record("dead_lettered", decided=NOW_US)),
        None,
        FromPostgres(row("dead_lettered"), LETTER),
    ),
    "letter not stored": (
        FromRecords(NOW_US, record("dead_lettered", decided=NOW_US)),
        None,
        FromPostgres(None),
    ),
    "completed": (
        FromRecords(NOW_US, record("completed", ended=NOW_US)),
        None,
        FromPostgres(row("completed")),
    ),
    "record expired": (
        FromRecords(NOW_US, record("none")),
        waiting(Where.NOWHERE),
        FromPostgres(row("completed")),
    ),
    "record lost": (
        FromRecords(NOW_US, record("none")),
        waiting(Where.NOWHERE),
        FromPostgres(row("accepted")),
    ),
    "unknown": (FromRecords(NOW_US, record("none")), FromBroker(Where.NOWHERE), FromPostgres()),
    "not begun": (
        FromRecords(NOW_US, record("none")),
        waiting(place=PLACE),
        FromPostgres(),
    ),
}


def facts(scene: str) -> Facts:
    records, broker, postgres = SCENES[scene]
    settings = Settings(redis_url=URL, broker_url=URL)
    return Facts(settings, "j", {}, None, records, broker, postgres)


def kinds(known: Facts) -> list[CauseKind]:
    return [cause.kind for cause in explanation_of(known).causes]


def without(known: Facts, server: Server) -> Facts:
    """What is known if this server is silent; without the records the gate is not known either."""
    found: dict[str, Any] = {server.value: None}
    if server is Server.RECORDS and known.postgres is not None:
        found["postgres"] = replace(known.postgres, gate=None)
    return replace(known, outages={server: "it does not answer"}, **found)


@pytest.mark.parametrize("scene", SCENES)
def test_each_scene_has_a_cause(scene: str) -> None:
    assert kinds(facts(scene))


@pytest.mark.parametrize("server", Server)
@pytest.mark.parametrize("scene", SCENES)
def test_without_a_server_no_other_cause_is_named_than_with_it(scene: str, server: Server) -> None:
    whole, partial = kinds(facts(scene)), kinds(without(facts(scene), server))
    assert SILENT[server] in partial
    assert set(partial) <= set(whole) | INSTEAD
    for kind in set(partial) - INSTEAD:
        assert server not in CAUSES[kind].needs, kind


def test_a_pause_hides_that_no_worker_reads_the_queue_since_that_follows_from_it() -> None:
    assert kinds(facts("paused")) == [K.PAUSED, K.QUEUED]


def test_the_gate_is_named_before_the_request_that_waits_for_it() -> None:
    assert kinds(facts("unserved")) == [
        K.GATE_CLOSED,
        K.REQUEST_OPEN,
        K.NO_CONSUMER,
        K.QUEUED_AT_RABBITMQ,
    ]


def test_an_id_is_unknown_only_if_every_server_said_so() -> None:
    assert kinds(facts("unknown")) == [K.UNKNOWN_ID]
    for server in Server:
        assert K.UNKNOWN_ID not in kinds(without(facts("unknown"), server))


def test_a_replayed_letter_offers_no_second_replay() -> None:
    known = facts("letter")
    stored = FromPostgres(row("dead_lettered"), {**LETTER, "status": "replayed"}, "was replayed")
    (cause,) = explanation_of(replace(known, postgres=stored)).causes
    assert cause.kind is K.LETTER_NOT_REPLAYABLE
    assert cause.commands == ()
