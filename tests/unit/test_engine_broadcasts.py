"""A signed broadcast at one worker: who asks, bound to this worker, answered alike to each copy."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kombu.pidbox
import pytest
from celery import Celery
from kombu.pidbox import Mailbox
from redis.exceptions import ConnectionError as RedisLost

from support.signing import Keeper
from taskyard.access import Action
from taskyard.access.broadcast_calls import WHOAMI, call_of_broadcast
from taskyard.access.credential import sign
from taskyard.access.verify_credential import Verifier
from taskyard.engine.broadcast_node import BroadcastNode, receive_broadcasts
from taskyard.engine.count_denied_broadcasts import AT_ONCE, MOST_TARGETS, DeniedBroadcasts
from taskyard.engine.signed_broadcasts import TARGET, Broadcasts
from taskyard.records.denied_broadcast_reports import WINDOW_S, DeniedReport
from taskyard.records.verb_events import Bound, VerbEvent
from taskyard.settings import Settings
from taskyard.wire.credential_argument import CREDENTIAL

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
    """What was appended to the stream and reported; it refuses where a test says so."""

    def __init__(self) -> None:
        self.appended: list[VerbEvent] = []
        self.reported: list[DeniedReport] = []
        self.refuses = False

    def bind(self, event: VerbEvent, nonce: str, expires_at_s: float) -> Bound:
        self._refuse()
        self.appended.append(event)
        return Bound(True, event.code)

    def write(self, report: DeniedReport) -> None:
        self._refuse()
        self.reported.append(report)

    def _refuse(self) -> None:
        if self.refuses:
            raise RedisLost("gone")


class Stage:
    """One worker's receiver and a key that it knows."""

    def __init__(self, folder: Path) -> None:
        self.keeper, self.clock, self.events = Keeper(folder), StoppedClock(), Events()
        verifier = Verifier(Settings(public_keys=self.keeper.ring), self.clock)
        self.denied = DeniedBroadcasts(self.events, self.clock)  # type: ignore[arg-type]
        self.broadcasts = Broadcasts(verifier, self.events, self.denied)  # type: ignore[arg-type]

    def signed(self, *workers: str, **changes: Any) -> str:
        call = replace(call_of_broadcast("taskyard", WHOAMI, workers), **changes)
        return sign(
            self.keeper.key,
            self.keeper.identity,
            call,
            now=self.clock.now(),
            life=timedelta(minutes=10),
        )

    def ask(self, credential: object, worker: str = ONE, target: str = "") -> dict[str, Any]:
        return self.broadcasts.whoami(worker, credential, target)

    def beat(self) -> None:
        """What the thread of the heartbeats does."""
        self.denied.report(self.events)  # type: ignore[arg-type]

    def counts(self) -> dict[str, int]:
        """The reported denials by cause; a report that came again counts once."""
        found: Counter[str] = Counter()
        for report in {report.number: report for report in self.events.reported}.values():
            found[report.kind.code] += report.count
        return dict(found)


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
    [event] = stage.events.appended
    assert (event.worker, event.code, event.credential) == (ONE, "", credential)


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


def test_what_does_not_hold_is_denied_with_its_code_and_counted(stage: Stage) -> None:
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
        report = stage.events.reported[-1]
        assert (report.kind.code, report.worker, report.count) == (code, ONE, 1)
        assert sound.split(".")[2] not in answer["why"]
    assert stage.events.appended == []


def test_a_broadcast_to_named_workers_holds_there(stage: Stage) -> None:
    assert stage.ask(stage.signed(ONE, TWO))["worker"] == ONE


def test_what_cannot_be_audited_is_not_done_and_can_be_asked_again(stage: Stage) -> None:
    credential = stage.signed()
    stage.events.refuses = True
    assert stage.ask(credential)["denied"] == "not_audited"
    assert stage.ask(None)["denied"] == "unsigned"
    stage.events.refuses = False
    assert stage.ask(credential)["subject"] == "anna@example.com"


def test_a_flood_of_denials_makes_few_reports_and_few_log_lines(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(10_000):
        stage.ask(None)
    assert len(stage.events.reported) == AT_ONCE
    stage.beat()
    assert stage.counts() == {"unsigned": 10_000}
    assert len(stage.events.reported) == len(caplog.records) == AT_ONCE + 1
    assert "worker one@host denied 9990 broadcasts of whoami" in caplog.text
    stage.ask(None)
    assert stage.counts() == {"unsigned": 10_001}


def test_a_flood_with_a_new_receiver_each_time_has_a_limited_number_of_kinds(stage: Stage) -> None:
    for number in range(10_000):
        stage.ask("x", target=f"{number:016}")
    stage.beat()
    kinds = {report.kind for report in stage.events.reported}
    assert len(kinds) == MOST_TARGETS + 1
    assert stage.counts() == {"malformed": 10_000}
    stage.clock.wait_s(WINDOW_S)
    stage.ask("x", target="later")
    assert stage.events.reported[-1].kind.target == "later"


def test_denials_wait_for_a_redis_that_does_not_answer_and_are_counted_once(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.events.refuses = True
    for _ in range(50):
        stage.ask(None)
    stage.beat()
    stage.ask("x")
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    stage.events.refuses = False
    # The first report may have been carried out, so it comes again as it was.
    stage.beat()
    stage.beat()
    assert [report.count for report in stage.events.reported] == [1, 1, 49]
    assert stage.counts() == {"unsigned": 50, "malformed": 1}


def test_denials_from_two_threads_are_counted_once(stage: Stage) -> None:
    done = threading.Event()

    def beats() -> None:
        while not done.is_set():
            stage.beat()

    thread = threading.Thread(target=beats)
    thread.start()
    for _ in range(5_000):
        stage.ask(None)
    done.set()
    thread.join()
    stage.beat()
    assert stage.counts() == {"unsigned": 5_000}


class Node(BroadcastNode):
    """A receiver with a recorder for its only command."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        super().__init__(
            ONE,
            state={},
            handlers={WHOAMI: self._record, "ping": self._record},
            mailbox=Mailbox("x"),
        )

    def _record(self, state: dict[str, Any], **arguments: Any) -> str:
        self.calls.append((state.get(TARGET, ""), arguments))
        return "done"


def test_a_signed_broadcast_has_its_credential_alone_and_its_receivers() -> None:
    node = Node()
    for arguments, given in (
        ({CREDENTIAL: "v1.x", "state": 1, "worker": "w"}, "v1.x"),
        ({}, None),
        (None, None),
        (["v1.x"], ["v1.x"]),
        ("v1.x", "v1.x"),
    ):
        node.handle_message({"method": WHOAMI, "arguments": arguments})
        assert node.calls[-1] == ("", {CREDENTIAL: given})
    node.handle_message({"method": WHOAMI, "arguments": {}, "destination": [ONE, TWO]})
    node.handle_message({"method": WHOAMI, "arguments": {}, "destination": [ONE]})
    node.handle_message({"method": WHOAMI, "pattern": "one@*", "matcher": "glob"})
    targets = [target for target, _ in node.calls[-3:]]
    assert len(set(targets)) == 3
    assert all(len(target) == 16 for target in targets)
    node.handle_message({"method": "ping", "arguments": {"any": 1}})
    assert node.calls[-1][1] == {"any": 1}


def test_an_apps_own_receiver_of_control_commands_stays_in_use() -> None:
    class Own(kombu.pidbox.Node):  # type: ignore[misc]
        def dispatch(self, method: str, *_: Any, **__: Any) -> str:
            return f"{self.hostname} got {method}"

    app = Celery("app", broker="memory://")
    app.control.mailbox.node_cls = Own
    for _ in range(2):
        receive_broadcasts(app)
    node = app.control.mailbox.Node(ONE, state={})
    assert isinstance(node, BroadcastNode)
    assert node.handle_message({"method": WHOAMI}) == f"{ONE} got {WHOAMI}"


def test_an_event_reads_back_as_it_was_written() -> None:
    event = VerbEvent(Action.WHOAMI, ONE, 1_760_000_000_000_000, "expired", "v1.x", 3)
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
        {**raw, b"count": b"0"},
        {**raw, b"count": b"1000001"},
        {**raw, b"count": b"many"},
    ):
        with pytest.raises(ValueError, match=r".+"):
            VerbEvent.parse(broken)
