"""What follows a job and cannot be published is a dead letter of its own; the job's end stands."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from servers import Servers
from support.ground import GROUNDS, Ground, ground_on, signature
from support.legacy_fixtures import BROKERS
from support.waiting import eventually
from taskyard.wire.letter_envelope import Letter

# What a client may write into a signature's options, or leave out, and Celery cannot publish.
BROKEN: dict[str, dict[str, Any]] = {
    "unknown kind": {"subtask_type": "nothing of Celery's"},
    "junk countdown": {"options": {"countdown": "x"}},
    "unknown serializer": {"options": {"serializer": "nobody's"}},
    "unknown compression": {"options": {"compression": "nobody's"}},
    "junk expiry": {"options": {"expires": "never"}},
    "junk queue": {"options": {"queue": 5}},
    "junk routing key": {"options": {"exchange": {"x": 1}}},
    "junk producer": {"options": {"producer": 5}},
    "junk headers": {"options": {"headers": 5}},
    "junk chord": {"subtask_type": "chord"},
}


@pytest.fixture(scope="module", params=BROKERS)
def broker(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=GROUNDS)
def ground(
    request: pytest.FixtureRequest,
    broker: str,
    servers: Servers,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Ground]:
    with ground_on(request.param, broker, servers, tmp_path_factory.mktemp("ground")) as made:
        yield made


def send(ground: Ground, embed: dict[str, Any], task: str = "", value: Any = 1) -> str:
    return ground.send(task or ground.same, [value], {}, embed)


def letters_of(ground: Ground, job_id: str) -> list[Letter]:
    """The letters of what follows a job."""
    return [one for one in ground.at_broker.letters() if one.evidence.get("of_job") == job_id]


def letter_after(ground: Ground, job_id: str) -> Letter:
    eventually(lambda: letters_of(ground, job_id), "a letter of its continuation", why=ground.log)
    ground.await_state(job_id, "completed")
    assert ground.events(job_id) == ["begin", "complete"]
    [letter] = letters_of(ground, job_id)
    return letter


@pytest.mark.parametrize("broken", BROKEN)
def test_a_callback_that_cannot_be_published_is_a_letter_and_the_other_one_runs(
    ground: Ground, broken: str
) -> None:
    own = str(uuid.uuid4())
    options = {**BROKEN[broken].get("options", {}), "task_id": own}
    one = {**signature(ground.same, "mine"), **BROKEN[broken], "options": options}
    sound = {**signature(ground.same), "options": {"task_id": str(uuid.uuid4())}}
    job_id = send(ground, {"callbacks": [one, sound]})
    letter = letter_after(ground, job_id)
    assert (letter.job_id, letter.job_type, letter.args) == (own, ground.same, [1, "mine"])
    assert (letter.category, letter.code) == ("validation_error", "continuation_invalid")
    assert f"callback 0 of job {job_id} was not published" in letter.error_message
    assert letter.evidence["signature"]["options"] == options
    assert ground.record(own)["state"] == "dead_lettered"
    ground.await_state(sound["options"]["task_id"], "completed")


def test_a_chains_step_that_cannot_be_published_is_a_letter_with_the_steps_behind_it(
    ground: Ground,
) -> None:
    last = signature(ground.same, "last")
    one = {**signature(ground.same), "subtask_type": "nothing of Celery's"}
    job_id = send(ground, {"chain": [last, one]})
    letter = letter_after(ground, job_id)
    assert "chain 1" in letter.error_message
    [_, _, embed] = json.loads(letter.message.body)
    assert [step["args"] for step in embed["chain"]] == [["last"]]


def test_what_leaves_out_all_that_has_a_default_is_published(ground: Ground) -> None:
    before = len(ground.event_names())
    job_id = send(ground, {"callbacks": [{"task": ground.same}], "chain": [{"task": ground.same}]})

    def completed() -> int:
        return sum(event == "complete" for _, event in ground.event_names()[before:])

    eventually(lambda: completed() == 3, "job, callback and chain", why=ground.log)
    assert letters_of(ground, job_id) == []


def test_a_chords_body_that_cannot_be_published_is_one_letter_with_the_results(
    ground: Ground,
) -> None:
    own = str(uuid.uuid4())
    body = {**signature(ground.total), "options": {"task_id": own, "countdown": "x"}}
    header = [signature(ground.same, 1), signature(ground.same, 2)]
    chord = ground.send("celery.chord", [header, body], {})
    ground.await_state(chord, "completed")
    eventually(lambda: ground.letters(own), "a letter of the body", why=ground.log)
    [letter] = ground.letters(own)
    assert (letter.category, letter.args) == ("validation_error", [[1, 2]])


@pytest.mark.parametrize("broken", ["unknown kind", "junk countdown", "unknown serializer"])
def test_an_errback_that_cannot_be_published_is_a_letter_beside_its_jobs(
    ground: Ground, broken: str
) -> None:
    one = {**signature(ground.same), **BROKEN[broken]}
    sound = {**signature(ground.same), "options": {"task_id": str(uuid.uuid4())}}
    job_id = send(ground, {"errbacks": [one, sound]}, ground.total, value="no list of numbers")
    eventually(lambda: letters_of(ground, job_id), "a letter of the errback", why=ground.log)
    eventually(lambda: ground.letters(job_id), "the job's own letter", why=ground.log)
    ground.await_empty()
    assert ground.events(job_id) == ["begin", "fail"]
    assert len(ground.letters(job_id)) == 1
    [letter] = letters_of(ground, job_id)
    assert letter.evidence["kind"] == "errback"
    ground.await_state(sound["options"]["task_id"], "completed")
