"""Assertions of a yard: what they find, and what they say when they do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import ANY

import pytest
from pydantic import BaseModel

from taskyard.errors import CodedError
from taskyard.jobs.handler_registry import Registry
from taskyard.testing import (
    Yard,
    assert_completed,
    assert_dead_lettered,
    assert_enqueued,
    refute_enqueued,
)


class Mail(BaseModel):
    to: str
    times: int = 1


@pytest.fixture
def yard() -> Iterator[Yard]:
    handlers = Registry()

    @handlers.job("mail", queue="exec", policy={"max_retries": 0})
    def mail(payload: Any) -> Any:
        if payload["to"] == "nobody":
            raise CodedError("bounced", "nobody lives there")
        return payload["to"]

    with Yard(handlers=handlers) as made:
        yield made


def test_a_job_is_found_by_type_payload_queue_and_priority(yard: Yard) -> None:
    yard.enqueue("mail", Mail(to="ada"))
    yard.enqueue("mail", {"to": "bob"}, queue="plan", priority=5)
    assert len(assert_enqueued(yard, "mail", count=2)) == 2
    assert_enqueued(yard, "mail", payload=Mail(to="ada"))
    assert_enqueued(yard, "mail", payload={"to": "ada", "times": ANY}, queue="exec", priority=3)
    [bob] = assert_enqueued(yard, "mail", queue="plan", priority=5)
    assert bob.payload == {"to": "bob"}
    refute_enqueued(yard, "mail", payload=None)


def test_a_duplicate_of_a_key_counts_once(yard: Yard) -> None:
    for _ in range(2):
        yard.enqueue("mail", {"to": "ada"}, idempotency_key="ada")
    assert_enqueued(yard, "mail", count=1)


def test_a_job_that_is_missing_is_told_with_what_was_there(yard: Yard) -> None:
    yard.enqueue("mail", {"to": "bob"})
    with pytest.raises(AssertionError) as raised:
        assert_enqueued(yard, "mail", payload={"to": "ada"}, queue="exec")
    assert str(raised.value) == (
        "expected at least one job of type 'mail', payload={'to': 'ada'}, queue='exec', found 0.\n"
        "The yard's jobs:\n"
        "  mail  accepted  queue=exec priority=3  payload={'to': 'bob'}"
    )


def test_an_empty_yard_says_so(yard: Yard) -> None:
    with pytest.raises(AssertionError, match=r"found 0\.\nThe yard has no jobs\."):
        assert_enqueued(yard, "mail")


def test_a_wrong_count_is_told(yard: Yard) -> None:
    yard.enqueue("mail", {"to": "bob"})
    with pytest.raises(AssertionError, match="expected 2 jobs of type 'mail', found 1"):
        assert_enqueued(yard, "mail", count=2)
    with pytest.raises(AssertionError, match="expected no jobs of type 'mail', found 1"):
        refute_enqueued(yard, "mail")


def test_a_completed_job_is_found_by_its_result(yard: Yard) -> None:
    yard.enqueue("mail", {"to": "ada"})
    yard.run()
    assert_completed(yard, "mail", result="ada", count=1)
    with pytest.raises(AssertionError, match=r"at least one completed job .*result='bob'"):
        assert_completed(yard, "mail", result="bob")


def test_a_job_that_failed_instead_of_completing_shows_its_error(yard: Yard) -> None:
    yard.enqueue("mail", {"to": "nobody"})
    yard.run()
    with pytest.raises(AssertionError, match=r"dead_lettered .* last error: 'nobody lives there'"):
        assert_completed(yard, "mail")


def test_a_letter_is_found_by_code_and_category(yard: Yard) -> None:
    yard.enqueue("mail", {"to": "nobody"})
    yard.run()
    [letter] = assert_dead_lettered(yard, "mail", code="bounced", category="retry_exhausted")
    assert letter.error_message == "nobody lives there"
    with pytest.raises(AssertionError) as raised:
        assert_dead_lettered(yard, "mail", category="timeout")
    assert str(raised.value).startswith(
        "expected at least one dead letter of type 'mail', category='timeout', found 0.\n"
        "The yard's dead letters:\n"
        "  mail  pending  code=bounced category=retry_exhausted  'nobody lives there'\n"
        "The yard's jobs:\n"
    )


def test_a_category_that_does_not_exist_is_no_silent_mismatch(yard: Yard) -> None:
    with pytest.raises(ValueError, match="'timeouts' is not a valid Category"):
        assert_dead_lettered(yard, "mail", category="timeouts", count=0)


def test_a_letter_that_was_replayed_stands_no_more(yard: Yard) -> None:
    job = yard.enqueue("mail", {"to": "nobody"})
    yard.run()
    yard.replay(job, payload={"to": "ada"})
    assert_dead_lettered(yard, "mail", count=0)


def test_a_long_list_is_cut(yard: Yard) -> None:
    for number in range(25):
        yard.enqueue("mail", {"to": str(number)})
    with pytest.raises(AssertionError, match=r"\.\.\. and 5 more"):
        assert_enqueued(yard, "mail", count=1)
