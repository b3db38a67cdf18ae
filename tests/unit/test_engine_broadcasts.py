"""A signed broadcast at one worker: who asks, bound to this worker, answered alike to each copy."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisLost

from support.signing import Keeper
from taskyard.access import Action
from taskyard.access.broadcast_calls import WHOAMI, call_of_broadcast
from taskyard.access.credential import sign
from taskyard.access.verify_credential import Verifier
from taskyard.engine.signed_broadcasts import Broadcasts
from taskyard.records.verb_events import VerbEvent
from taskyard.settings import Settings

ONE, TWO = "one@host", "two@host"


class StoppedClock:
    """A clock that a test moves."""

    at = datetime(2026, 11, 28, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def monotonic_s(self) -> float:
        return self.at.timestamp()

    def wait_s(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class Events:
    """What was appended to the stream; it refuses where a test says so."""

    def __init__(self) -> None:
        self.appended: list[tuple[VerbEvent, bool]] = []
        self.refuses = False

    def append(self, event: VerbEvent, *, essential: bool) -> None:
        if self.refuses:
            raise RedisLost("gone")
        self.appended.append((event, essential))


class Stage:
    """One worker's receiver and a key that it knows."""

    def __init__(self, folder: Path) -> None:
        self.keeper, self.clock, self.events = Keeper(folder), StoppedClock(), Events()
        verifier = Verifier(Settings(public_keys=self.keeper.ring), self.clock)
        self.broadcasts = Broadcasts(verifier, self.events)  # type: ignore[arg-type]

    def signed(self, *workers: str, **changes: Any) -> str:
        call = replace(call_of_broadcast("taskyard", WHOAMI, workers), **changes)
        return sign(
            self.keeper.key,
            self.keeper.identity,
            call,
            now=self.clock.now(),
            life=timedelta(minutes=10),
        )

    def ask(self, credential: object, worker: str = ONE) -> dict[str, Any]:
        return self.broadcasts.whoami(worker, credential)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "keys")


def test_a_worker_says_who_has_signed(stage: Stage) -> None:
    credential = stage.signed()
    assert stage.ask(credential) == {
        "worker": ONE,
        "subject": "anna@example.com",
        "role": "operator",
        "via": f"key:{stage.keeper.key.key_id}",
    }
    [(event, essential)] = stage.events.appended
    assert (event.worker, event.code, event.credential, essential) == (ONE, "", credential, True)


def test_a_copy_gets_the_same_answer_and_is_the_same_call(stage: Stage) -> None:
    credential = stage.signed()
    assert stage.ask(credential) == stage.ask(credential)
    assert len(stage.events.appended) == 1


def test_a_nonce_is_kept_until_no_receiver_takes_it_and_no_longer(stage: Stage) -> None:
    credential = stage.signed()
    stage.ask(credential)
    stage.clock.wait_s(15 * 60)
    assert "subject" in stage.ask(credential)
    stage.clock.wait_s(1)
    assert stage.ask(credential)["denied"] == "expired"
    stage.ask(stage.signed())
    assert len(stage.broadcasts._answers) == 1


def test_what_does_not_hold_is_denied_with_its_code_and_is_not_essential(stage: Stage) -> None:
    sound = stage.signed()
    for credential, code in (
        (None, "unsigned"),
        (7, "malformed"),
        (sound[:-9], "malformed"),
        (stage.signed(audience="acme"), "wrong_audience"),
        (stage.signed(verb=Action.CONTROLLED_REPLAY), "wrong_verb"),
        (stage.signed(TWO), "wrong_target"),
    ):
        answer = stage.ask(credential)
        assert answer["denied"] == code
        event, essential = stage.events.appended[-1]
        assert (event.code, event.credential, essential) == (code, "", False)
        assert sound.split(".")[2] not in answer["why"]
    assert len(stage.events.appended) == 6


def test_a_broadcast_to_named_workers_holds_there(stage: Stage) -> None:
    assert stage.ask(stage.signed(ONE, TWO))["worker"] == ONE


def test_what_cannot_be_audited_is_not_done_and_can_be_asked_again(stage: Stage) -> None:
    credential = stage.signed()
    stage.events.refuses = True
    assert stage.ask(credential)["denied"] == "not_audited"
    assert stage.ask(None)["denied"] == "unsigned"
    stage.events.refuses = False
    assert stage.ask(credential)["subject"] == "anna@example.com"


def test_an_event_reads_back_as_it_was_written() -> None:
    event = VerbEvent(Action.WHOAMI, ONE, 1_760_000_000_000_000, "expired", "v1.x")
    raw = {name.encode(): str(value).encode() for name, value in event.fields().items()}
    assert VerbEvent.parse(raw) == event
    for broken in (
        {**raw, b"verb": b"none"},
        {**raw, b"at": b"x"},
        {**raw, b"at": b"9" * 30},
        {**raw, b"worker": b"\xff"},
        {**raw, b"worker": b"a\x00"},
        {**raw, b"worker": b""},
        {**raw, b"worker": b"w" * 256},
    ):
        with pytest.raises(ValueError, match=r".+"):
            VerbEvent.parse(broken)
