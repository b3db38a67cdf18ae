"""What errors say is stored without its secrets: in records, letters, ledger, audit and mirror."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from taskyard import audit
from taskyard.clock import to_us
from taskyard.deadletters import build_letter
from taskyard.install.failure_in_main import failure_seen
from taskyard.jobs import Category
from taskyard.ledger import Entry
from taskyard.mirror.delivery_port import Delivery
from taskyard.mirror.letter_rows import junk_row
from taskyard.mirror.read_delivery import Unreadable
from taskyard.records import Record
from taskyard.runner.exception_facts import MESSAGE_LIMIT, describe_failure
from taskyard.runner.stored_decision import plain_failure
from taskyard.wire import RawMessage

SECRET = "hunter2"  # noqa: S105 - it must never be stored
TEXTS = [
    f"cannot log in with password={SECRET}",
    f"redis://worker:{SECRET}@host:6379/0 does not answer",
    f"refused: {{'api_key': '{SECRET}'}}",
]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def fail(text: str) -> None:
    raise ConnectionError(text)


def raised(text: str) -> Exception:
    with pytest.raises(ConnectionError) as caught:
        fail(text)
    return caught.value


@pytest.mark.parametrize("text", TEXTS)
def test_a_failure_is_described_without_the_secrets_of_its_exception(text: str) -> None:
    failure = describe_failure("plan_generation", raised(text))
    assert "[redacted]" in failure.message
    assert SECRET not in failure.message + failure.traceback
    assert "ConnectionError" in failure.traceback


def test_an_exceptions_arguments_hold_no_secret_either() -> None:
    error = ConnectionError(5, {"password": SECRET})
    failure = describe_failure("plan_generation", error)
    assert SECRET not in failure.message + failure.traceback


def test_a_url_at_the_bound_is_masked_before_it_is_cut() -> None:
    url = f"redis://worker:{SECRET}{'x' * 50}@host"
    failure = describe_failure("plan_generation", raised("." * (MESSAGE_LIMIT - 30) + " " + url))
    assert SECRET not in failure.message


@pytest.mark.parametrize("text", TEXTS)
def test_a_traceback_that_another_process_sent_is_masked(text: str) -> None:
    seen = failure_seen("plan_generation", raised(text), f"Traceback:\nConnectionError: {text}")
    assert SECRET not in seen.message + seen.traceback


@pytest.mark.parametrize("text", TEXTS)
def test_a_death_without_an_exception_is_masked(text: str) -> None:
    died = plain_failure(Category.POISON, "poison", "PoisonJob", text)
    assert SECRET not in died.failure.message


@pytest.mark.parametrize("text", TEXTS)
def test_a_letter_of_an_older_workers_record_is_masked(text: str) -> None:
    cause = {"category": "timeout", "message": text, "traceback": f"Traceback:\n{text}"}
    record = Record("job", {"state": "dead_lettered", "epoch": "1", "cause": json.dumps(cause)})
    letter = build_letter(record, RawMessage(body=b"[]"))
    assert "[redacted]" in letter.error_message
    assert SECRET not in letter.error_message + letter.traceback


@pytest.mark.parametrize("text", TEXTS)
def test_an_entry_of_the_ledger_is_masked(text: str) -> None:
    fields = {"job": "j", "epoch": 1, "version": 1, "event": "retry", "state": "retrying"}
    raw = {name.encode(): str(value).encode() for name, value in fields.items()}
    entry = Entry.parse(raw | {b"at": str(to_us(NOW)).encode(), b"error": text.encode()})
    assert SECRET not in str(entry.text("error"))
    assert "[redacted]" in str(entry.text("error"))


@pytest.mark.parametrize("text", TEXTS)
def test_a_refusal_in_the_audit_log_is_masked(text: str) -> None:
    assert SECRET not in audit.refused(ConnectionError(text))


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_that_are_no_letter_are_kept_with_a_masked_why_and_the_clocks_time(
    text: str,
) -> None:
    row = junk_row(Unreadable(Delivery(b"junk"), f"not a letter: {text}"), NOW)
    assert SECRET not in row["mirror_error"] + row["failure_reason"]
    assert row["decided_at"] == NOW
