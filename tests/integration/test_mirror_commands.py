"""Control commands in the lifecycle stream: rows once, and what a hostile client appends."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, func, select

from support.signing import Keeper
from taskyard.access import Action
from taskyard.access.broadcast_calls import UNVERIFIED, call_of_command
from taskyard.access.credential import sign
from taskyard.access.verify_credential import Verifier
from taskyard.audit import list_unverified
from taskyard.clock import to_us
from taskyard.database.tables import AUDIT
from taskyard.database.tables import UNVERIFIED as DENIALS
from taskyard.mirror import audit_commands
from taskyard.mirror.audit_worker_verbs import store_verbs
from taskyard.mirror.lifecycle_stream import StreamEntry
from taskyard.records.command_events import LONGEST_ARGUMENTS, CommandEvent, CommandEvents
from taskyard.records.verb_events import announced
from taskyard.settings import Settings

WORKER, OTHER = "exec@host", "exec-2@host"
GIVEN = {"task_id": "job-1"}


class Stage:
    """A stream, a key, and the mirror's end."""

    began: datetime

    def __init__(self, settings: Settings, database: Engine, folder: Path) -> None:
        self.keeper = Keeper(folder)
        self.settings = settings.model_copy(update={"public_keys": self.keeper.ring})
        self.database = database
        self.client = redis.Redis.from_url(settings.need_redis_url())
        self.key = f"{settings.namespace}:lifecycle"
        self.verifier = Verifier(self.settings)
        self.events = CommandEvents(self.client, settings.namespace, 100)

    def signed(self, **arguments: Any) -> str:
        call = call_of_command(
            self.settings.namespace, Action.CANCEL_REQUEST, "revoke", arguments or GIVEN
        )
        now, life = datetime.now(UTC), timedelta(minutes=10)
        return sign(self.keeper.key, self.keeper.identity, call, now=now, life=life)

    def event(self, worker: str = WORKER, credential: str = "", **changes: Any) -> CommandEvent:
        broadcast = self.nonce(credential) if credential else secrets.token_hex(32)
        at_us = to_us(datetime.now(UTC))
        event = CommandEvent(
            verb=Action.CANCEL_REQUEST,
            worker=worker,
            at_us=at_us,
            command="revoke",
            broadcast=broadcast,
            arguments=json.dumps(GIVEN),
            credential=credential,
        )
        return replace(event, **changes)

    def nonce(self, credential: str) -> str:
        call = call_of_command(self.settings.namespace, Action.CANCEL_REQUEST, "revoke", GIVEN)
        return self.verifier.authenticate(credential, call).nonce

    def append(self, event: CommandEvent, **fields: Any) -> None:
        """Append an entry as any program can that enqueues."""
        self.client.xadd(self.key, {**event.fields(), **fields})

    def announce(self, *workers: str) -> None:
        self.client.zadd(f"{self.settings.namespace}:workers:announced", dict.fromkeys(workers, 1))

    def entries(self) -> list[StreamEntry]:
        return [StreamEntry(key.decode(), fields) for key, fields in self.client.xrange(self.key)]

    def store(self) -> None:
        """Store the stream's entries as a mirror does, and commit."""
        entries = self.entries()
        names = {entry.fields.get(b"worker", b"") for entry in entries}
        workers = announced(self.client, self.settings.namespace, names)
        with self.database.begin() as connection:
            store_verbs(connection, entries, self.verifier, workers)

    def outcomes(self) -> list[str]:
        return [row["outcome"] for row in self.rows()]

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the commands of this test's workers."""
        query = select(AUDIT).where(AUDIT.c.performed_at >= self.began).order_by(AUDIT.c.id)
        with self.database.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def counts(self) -> dict[str, int]:
        return {row["why"]: row["count"] for row in list_unverified(self.database, None, 20)}


@pytest.fixture
def stage(settings: Settings, database: Engine, tmp_path: Path) -> Iterator[Stage]:
    with database.begin() as connection:
        connection.execute(DENIALS.delete())
    made = Stage(settings, database, tmp_path / "keys")
    with database.connect() as connection:
        made.began = connection.execute(select(func.clock_timestamp())).scalar_one()
    yield made
    made.client.close()


def test_the_request_and_the_outcome_of_the_first_worker_are_stored_once(stage: Stage) -> None:
    event = stage.event()
    opened = stage.events.request(event, "r-1")
    assert (opened.first_here, opened.outcome) == (True, "")
    assert stage.events.request(replace(event, worker=OTHER), "r-1").first_here
    jobs = json.dumps({"job-1": "cancelled"})
    stage.events.answer(replace(event, worker=OTHER, outcome="applied", jobs=jobs), "r-1")
    stage.events.answer(replace(event, outcome="refused: too late"), "r-1")
    again = stage.events.request(event, "r-1")
    assert (again.first_here, again.outcome) == (False, "applied")
    assert len(stage.entries()) == 2
    for _ in range(2):
        stage.store()
    request, outcome = stage.rows()
    assert request["detail"]["arguments"] == GIVEN
    assert (request["target_request_id"], request["operator_identity"]) == ("job-1", UNVERIFIED)
    assert (outcome["outcome"], outcome["detail"]["jobs"]) == ("applied", {"job-1": "cancelled"})


def test_a_signed_commands_rows_have_its_signer(stage: Stage) -> None:
    event = stage.event(credential=stage.signed())
    stage.events.request(event, "r-1")
    stage.events.answer(replace(event, outcome="refused: job job-1 is completed"), "r-1")
    stage.store()
    assert stage.outcomes() == ["requested", "refused: job job-1 is completed"]
    assert {row["operator_identity"] for row in stage.rows()} == {stage.keeper.subject}
    assert event.credential.split(".")[3] not in str(stage.rows())


def test_the_mirror_believes_no_entry_that_its_credential_does_not_cover(stage: Stage) -> None:
    stage.announce(WORKER)
    sound = stage.event(credential=stage.signed())
    for event in (
        replace(sound, arguments='{"task_id": "job-2"}'),
        replace(sound, command="terminate", verb=Action.ABORT_REQUEST),
        replace(sound, credential=sound.credential[:-4] + "AAAA"),
        replace(sound, broadcast="0" * 32),
        replace(sound, worker=OTHER),
        replace(sound, at_us=sound.at_us - 3_600_000_000),
        replace(sound, outcome="denied"),
        replace(sound, verb=Action.PURGE_QUEUE),
        replace(sound, command="ping"),
    ):
        stage.append(event)
    stage.store()
    assert stage.rows() == []
    assert stage.counts() == {
        "wrong_arguments": 1, "wrong_verb": 1, "bad_signature": 1, "malformed": 3,
        "unknown_worker": 1, "wrong_time": 1, "wrong_outcome": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {"arguments": "[" * 60_000},
        {"arguments": "[1]"},
        {"arguments": "{"},
        {"arguments": '{"a": ' + "1" * 5_000 + "}"},
        {"arguments": "{}" + " " * LONGEST_ARGUMENTS},
        {"jobs": "7"},
        {"broadcast": "short"},
        {"broadcast": ""},
        {"at": "9" * 30},
        {"worker": "a\x00"},
        {"verb": "whoami"},
        {"command": ""},
    ],
)
def test_an_entry_that_is_no_command_is_counted_and_stops_no_mirror(
    stage: Stage, fields: dict[str, str]
) -> None:
    stage.append(stage.event(), **fields)
    stage.store()
    assert stage.rows() == []
    assert stage.counts() == {"malformed": 1}


def test_texts_that_postgres_cannot_hold_are_packed(stage: Stage) -> None:
    given = {"task_id": ["a\x00", "b\ud800"], "signal": float("nan")}
    stage.append(stage.event(), arguments=json.dumps(given), outcome="", jobs='{"\\u0000": "x"}')
    stage.append(stage.event(), outcome="refused: \x1b[2J a\x00b", jobs='{"\\u0000": "x"}')
    stage.store()
    assert len(stage.rows()) == 2


def test_a_forged_entry_adds_no_row_to_another_operators_call(stage: Stage) -> None:
    event = stage.event(credential=stage.signed())
    stage.events.request(event, "r-1")
    stage.append(stage.event(broadcast=event.broadcast, outcome="applied"))
    stage.append(stage.event(broadcast=event.broadcast.ljust(64, "0"), outcome="applied"))
    stage.store()
    request, forged = stage.rows()
    assert request["operator_identity"] == stage.keeper.subject
    assert forged["operator_identity"] == UNVERIFIED
    assert forged["request_id"] != request["request_id"]


def test_a_flood_of_unsigned_commands_has_a_limited_number_of_rows(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_commands, "MOST_UNVERIFIED_A_MINUTE", 0)
    first = stage.event()
    stage.append(first)
    stage.store()
    assert (stage.rows(), stage.counts()) == ([], {"too_many_commands": 1})
    # The outcome of a request that has its row is written all the same.
    monkeypatch.undo()
    stage.store()
    monkeypatch.setattr(audit_commands, "MOST_UNVERIFIED_A_MINUTE", 0)
    stage.append(replace(first, outcome="applied"))
    stage.store()
    assert stage.outcomes() == ["requested", "applied"]


def test_unsigned_commands_are_left_out_of_a_full_stream_and_signed_ones_are_not(
    stage: Stage,
) -> None:
    for number in range(60):
        stage.client.xadd(stage.key, {"filler": number})
    stage.events.request(stage.event(), "r-1")
    assert len(stage.entries()) == 60
    gaps = stage.client.hgetall(f"{stage.settings.namespace}:lifecycle:gaps")
    assert gaps == {b"unverified_command": b"1"}
    stage.events.request(stage.event(credential=stage.signed()), "r-2")
    assert len(stage.entries()) == 61


def test_a_signed_event_at_a_wrong_clock_is_not_appended(stage: Stage) -> None:
    late = replace(stage.event(credential=stage.signed()), at_us=1_700_000_000_000_000)
    with pytest.raises(ValueError, match="the clocks of the worker and of Redis differ"):
        stage.events.request(late, "r-1")
    assert stage.entries() == []
    assert not stage.client.exists(f"{stage.settings.namespace}:command:r-1")
