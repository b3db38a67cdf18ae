"""What a dead letter holds, and what a replay does with it."""

from __future__ import annotations

import json

import pytest

from conformance.stage import Stage
from taskyard.errors import Refused
from taskyard.jobs.states import State
from taskyard.wire.letter_envelope import letter_id
from taskyard.wire.lossless_json import pack


def test_a_letter_holds_the_job_its_cause_and_its_message(stage: Stage) -> None:
    job = stage.act("fail", value={"ü": 1}, priority=4, queue="plan", policy={"max_retries": 1})
    stage.settle(job)
    record = job.record()
    [letter] = stage.letters(job)
    assert letter.letter_id == letter_id(job.job_id, record.epoch, 0)
    assert (letter.job_type, letter.queue, letter.priority) == ("steady", "plan", 4)
    assert (letter.error_class, letter.message) == ("CodedError", "told to fail with flaky")
    assert "told to fail with flaky" in letter.traceback
    assert letter.args == [{"do": "fail", "value": {"ü": 1}}]
    assert json.loads(letter.body)[0] == letter.args
    assert letter.evidence == {"hint": "told"}
    assert letter.outcomes == ["retrying", "dead_lettered"]
    assert (letter.eligible, letter.status) == (True, "pending")


def test_a_letter_names_the_domain_of_its_type_also_after_a_replay(stage: Stage) -> None:
    job, other = stage.act("fail", "owned"), stage.act("fail", policy={"max_retries": 0})
    stage.settle(job, other)
    [letter], [foreign] = stage.letters(job), stage.letters(other)
    assert (letter.domain, foreign.domain) == ("billing", None)
    stage.replay(letter)
    stage.settle(job)
    assert [again.domain for again in stage.letters(job)] == ["billing", "billing"]


def test_a_letter_holds_what_is_no_plain_text(stage: Stage) -> None:
    odd = "\ud800 \x00 \u2028 \U0001f4ee"
    job = stage.act("fail", value={odd: odd}, policy={"max_retries": 0})
    stage.settle(job)
    [letter] = stage.letters(job)
    payload = {"do": "fail", "value": {odd: odd}}
    assert json.loads(letter.body)[0] == [payload]
    assert letter.args == [pack(payload)]


def test_a_type_that_escalates_leaves_its_letter_for_manual_review(stage: Stage) -> None:
    job = stage.act("fail", "picky", code="hopeless")
    stage.settle(job)
    assert stage.letters(job)[0].status == "manual_review"


def test_a_replayed_job_keeps_its_id_and_completes(stage: Stage) -> None:
    job = stage.act("fail", times=1, value=7, policy={"max_retries": 0})
    stage.settle(job)
    stage.replay(stage.letters(job)[0])
    stage.settle(job)
    assert job.state() is State.COMPLETED
    assert job.result(0) == 7
    assert stage.event_names(job) == ["admit", "begin", "fail", "replay", "begin", "complete"]
    [letter] = stage.letters(job)
    assert letter.status == "replayed"


def test_a_letter_is_replayed_once(stage: Stage) -> None:
    job = stage.act("fail", times=1, policy={"max_retries": 0})
    stage.settle(job)
    letter = stage.letters(job)[0]
    stage.replay(letter)
    with pytest.raises(Refused, match="already replayed"):
        stage.replay(letter)
    stage.settle(job)
    assert stage.diary.runs(job.job_id) == 2


def test_a_replay_starts_its_counters_anew_and_may_die_again(stage: Stage) -> None:
    job = stage.act("fail", policy={"max_retries": 1})
    stage.settle(job)
    stage.replay(stage.letters(job)[0])
    stage.settle(job)
    letters = stage.letters(job)
    assert [letter.generation for letter in letters] == [0, 1]
    assert [letter.outcomes for letter in letters] == [["retrying", "dead_lettered"]] * 2
    assert [letter.status for letter in letters] == ["replayed", "pending"]
    assert stage.diary.runs(job.job_id) == 4


def test_the_message_before_a_replay_is_stale(stage: Stage) -> None:
    job = stage.act("fail", times=1, value=7, policy={"max_retries": 0})
    stage.settle(job)
    stage.replay(stage.letters(job)[0])
    stage.settle(job)
    stage.redeliver(job, first=True)
    assert stage.diary.runs(job.job_id) == 2
    assert job.result(0) == 7


def test_a_failed_validation_needs_another_payload(stage: Stage) -> None:
    job = stage.act(times="many")
    stage.settle(job)
    letter = stage.letters(job)[0]
    with pytest.raises(Refused, match="edited payload"):
        stage.replay(letter)
    stage.replay(letter, payload={"value": "mended"})
    stage.settle(job)
    assert job.result(0) == "mended"


def test_an_expired_letter_needs_force_and_then_expires_no_more(stage: Stage) -> None:
    job = stage.act(value=3, countdown=1.2, expires=0.3)
    stage.settle(job)
    letter = stage.letters(job)[0]
    with pytest.raises(Refused, match="expired"):
        stage.replay(letter)
    stage.replay(letter, force=True)
    stage.settle(job)
    assert job.result(0) == 3


def test_a_replay_may_lead_to_another_queue(stage: Stage) -> None:
    job = stage.act("fail", times=1, value=5, priority=5, policy={"max_retries": 0})
    stage.settle(job)
    stage.replay(stage.letters(job)[0], queue="locator")
    stage.settle(job)
    assert job.result(0) == 5
    assert job.record().queue == "locator"
