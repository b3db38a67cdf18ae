"""Celery's control commands at one worker: the table, what is no command, and revoked stamps."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker.control import Panel

from taskyard.access import RIGHTS, Action
from taskyard.access.broadcast_calls import UNVERIFIED, WHOAMI, request_id_of_command
from taskyard.clock import SYSTEM_CLOCK
from taskyard.engine import signed_broadcasts
from taskyard.engine.command_faults import fault_of_control_message
from taskyard.engine.control_command_table import COMMANDS, Rule, verb_of
from taskyard.engine.revocation import Revocation
from taskyard.engine.revoke_by_command import MOST_JOBS, Revoked, revoke
from taskyard.engine.revoke_jobs import DENIED, JobOutcome
from taskyard.engine.revoked_stamps import MOST_STAMPS, RevokedStamps
from taskyard.errors import InvalidPayload

PAGE = Path(__file__).parents[2] / "docs" / "control-commands.md"
ONE = "one@host"
REVOCATION = Revocation(Action.CANCEL_REQUEST, "r-1", UNVERIFIED)


def test_the_table_has_every_command_of_celery_and_of_taskyard_and_no_other() -> None:
    assert signed_broadcasts.whoami.__module__
    assert set(COMMANDS) == set(Panel.meta)


def test_only_a_free_command_has_a_second_name() -> None:
    aliases = {info.alias: name for name, info in Panel.meta.items() if info.alias}
    assert set(aliases) | set(COMMANDS) == set(Panel.data)
    assert {COMMANDS[name].rule for name in aliases.values()} == {Rule.FREE}


def test_the_page_shows_the_table() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+?) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    shown = {name: (rule, action.strip("` ")) for name, rule, action in rows}
    expected = {}
    for name, command in COMMANDS.items():
        verbs = [command.verb]
        if command.rule is Rule.MAPPED and not command.ends_attempts:
            verbs.append(Action.ABORT_REQUEST)
        expected[name] = (command.rule.value, "`, `".join(str(verb) for verb in verbs if verb))
    assert {name: (rule, action or "") for name, (rule, action) in shown.items()} == {
        name: (rule, action or "—") for name, (rule, action) in expected.items()
    }


def test_every_audited_or_mapped_command_has_an_action_with_a_right() -> None:
    for name, command in COMMANDS.items():
        verb = verb_of(name, {})
        assert (verb in RIGHTS) == (command.rule in (Rule.AUDITED, Rule.MAPPED))


def test_a_revocation_that_terminates_is_an_abortion() -> None:
    assert verb_of("revoke", {}) is Action.CANCEL_REQUEST
    assert verb_of("revoke", {"terminate": True}) is Action.ABORT_REQUEST
    assert verb_of("terminate", {}) is Action.ABORT_REQUEST
    assert verb_of("revoke_by_stamped_headers", {"terminate": 1}) is Action.ABORT_REQUEST
    assert verb_of("dump_conf", {"terminate": True}) is None


def test_no_hash_of_a_message_gives_the_request_id_of_a_signed_call() -> None:
    ids = {request_id_of_command("a" * 32, signed=signed) for signed in (True, False)}
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ([], "expected a mapping, got []"),
        ({}, "'method' must be the name of a command, got None"),
        ({"method": ["ping"]}, "'method' must be the name"),
        ({"method": "ping", "arguments": [1]}, "'arguments' of ping must be a mapping"),
        ({"method": "ping", "arguments": {1: 2}}, "'arguments' of ping must be a mapping"),
        ({"method": "ping", "destination": ONE}, "'destination' must be a list"),
        ({"method": "ping", "pattern": "(", "matcher": "pcre"}, "match no name"),
        ({"method": "ping", "pattern": "a", "matcher": "none"}, "match no name"),
        ({"method": "ping", "pattern": 7, "matcher": "glob"}, "match no name"),
        ({"method": "ping", "reply_to": "here"}, "'reply_to' must name an exchange"),
        ({"method": "ping", "reply_to": {"exchange": "x"}}, "'reply_to' must name an exchange"),
    ],
)
def test_what_is_no_command_is_named(body: Any, text: str) -> None:
    fault = fault_of_control_message(body, None, ONE)
    assert fault is not None
    assert text in fault


@pytest.mark.parametrize("clock", ["now", -1, 2**62, 1.5, []])
def test_a_clock_that_would_stop_the_workers_clock_is_named(clock: object) -> None:
    message = SimpleNamespace(headers={"clock": clock})
    fault = fault_of_control_message({"method": "ping"}, message, ONE)
    assert fault is not None
    assert "'clock' must be a whole number" in fault


def test_a_command_has_no_fault() -> None:
    for body in (
        {"method": "ping"},
        {"method": "ping", "arguments": None, "destination": None, "reply_to": None},
        {"method": "ping", "arguments": {"a": 1}, "destination": [ONE], "ticket": "t"},
        {"method": "ping", "pattern": "one@*", "matcher": "glob"},
        {"method": "ping", "reply_to": {"exchange": "x", "routing_key": "y"}},
        {"method": WHOAMI, "arguments": ["v1.x"]},
    ):
        for headers in ({}, {"clock": 7}, None):
            message = SimpleNamespace(headers=headers)
            assert fault_of_control_message(body, message, ONE) is None


class StoppedClock:
    """A clock that a test moves."""

    seconds = 0.0

    def monotonic_s(self) -> float:
        return self.seconds


def test_a_stamp_is_remembered_for_three_hours_by_header_and_value() -> None:
    clock = StoppedClock()
    stamps = RevokedStamps(clock)  # type: ignore[arg-type]
    stamps.add({"wave": ["7", 8], "odd": {"not": "a stamp"}}, REVOCATION)
    assert stamps.find({"wave": "7"}) is REVOCATION
    assert stamps.find({"wave": [1, 8]}) is REVOCATION
    for other in ({"wave": "9"}, {"tide": "7"}, {"wave": None}, {"odd": {"not": "a stamp"}}, {}):
        assert stamps.find(other) is None
    clock.seconds = timedelta(hours=3).total_seconds()
    assert stamps.find({"wave": "7"}) is None


def test_a_flood_of_stamps_forgets_the_oldest() -> None:
    stamps = RevokedStamps(SYSTEM_CLOCK)
    stamps.add({"wave": list(range(MOST_STAMPS + 1))}, REVOCATION)
    assert stamps.find({"wave": 0}) is None
    assert stamps.find({"wave": 1}) is REVOCATION


@pytest.mark.parametrize(
    ("command", "arguments", "text"),
    [
        ("revoke", {}, "expected one task id or a list of them, got None"),
        ("revoke", {"task_id": []}, "expected one task id or a list of them"),
        ("revoke", {"task_id": {"a": 1}}, "expected one task id or a list of them"),
        ("terminate", {"task_id": ["a", 7]}, "a job's id is a text of 1 to 255 characters"),
        ("terminate", {"task_id": "a\x00"}, "a job's id is a text of 1 to 255 characters"),
        ("revoke", {"task_id": ["a"] * (MOST_JOBS + 1)}, "ends at most 1000 jobs, got 1001"),
        ("revoke_by_stamped_headers", {}, "expected stamps by the name of their header"),
        ("revoke_by_stamped_headers", {"headers": ["wave"]}, "expected stamps by the name"),
        ("revoke_by_stamped_headers", {"headers": {}}, "expected stamps by the name"),
    ],
)
def test_a_revocation_of_a_wrong_form_is_refused(
    command: str, arguments: dict[str, Any], text: str
) -> None:
    context: Any = SimpleNamespace(only_jobs=True, revoked_stamps=RevokedStamps(SYSTEM_CLOCK))
    with pytest.raises(InvalidPayload, match=re.escape(text)):
        revoke(context, command, arguments, REVOCATION, dict, done=False)


def test_the_outcome_of_many_jobs_is_applied_if_one_was() -> None:
    ended = JobOutcome("cancelled", "job a is cancelled", applied=True)
    refused = JobOutcome.refused("completed", "job b is completed")
    denied = JobOutcome(DENIED, "not yours")
    for jobs, outcome, reply in (
        ([ended, refused], "applied", {"ok": "job a is cancelled; job b is completed"}),
        ([refused, denied], "refused: job b is completed; not yours", {"error": ...}),
        ([denied], "denied", {"error": "not yours"}),
    ):
        found = Revoked({str(number): job for number, job in enumerate(jobs)})
        assert found.outcome == outcome
        assert list(found.reply) == list(reply)
    assert Revoked(celery={"ok": "done"}).reply == {"ok": "done"}
    assert Revoked(celery={"error": "no"}).reply == {"error": "no"}
