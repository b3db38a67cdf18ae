"""Celery's own tasks are jobs like others: recorded once, with a letter when they fail."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from servers import Servers
from support.ground import GROUNDS, Ground, ground_on, signature
from support.legacy_fixtures import BROKERS
from support.waiting import eventually
from taskyard.wire.letter_envelope import Letter


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


def result_of(ground: Ground, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """The result of a built-in task that ran as exactly one recorded job."""
    job_id = ground.send(name, list(args), kwargs)
    ground.await_state(job_id, "completed")
    assert ground.events(job_id) == ["begin", "complete"]
    return ground.await_result(job_id)


def letter_of(ground: Ground, name: str, /, *args: Any, **kwargs: Any) -> Letter:
    """The only letter of a built-in task that failed at its only attempt."""
    job_id = ground.send(name, list(args), kwargs)

    eventually(lambda: ground.letters(job_id), f"a letter of {name} {job_id}", why=ground.log)
    assert ground.events(job_id) == ["begin", "fail"]
    [letter] = ground.letters(job_id)
    assert (letter.job_type, letter.queue) == (name, ground.queue)
    return letter


def test_a_map_over_a_task_is_one_job_with_its_results(ground: Ground) -> None:
    same = signature(ground.same)
    assert result_of(ground, "celery.map", task=same, it=["a", "b"]) == ["a", "b"]
    total = signature(ground.total)
    assert result_of(ground, "celery.map", task=total, it=[[1, 2], [3]]) == [3, 3]


def test_a_starmap_is_one_job_with_its_results(ground: Ground) -> None:
    assert result_of(ground, "celery.starmap", task=signature(ground.same), it=[["a"]]) == ["a"]


def test_what_is_accumulated_is_one_job(ground: Ground) -> None:
    assert result_of(ground, "celery.accumulate", 1, 2, 3) == [1, 2, 3]
    assert result_of(ground, "celery.accumulate", 1, 2, 3, index=1) == 2


def test_chunks_are_one_job_that_publishes_one_of_each_chunk(ground: Ground) -> None:
    reply = result_of(ground, "celery.chunks", task=signature(ground.same), it=[["a"], ["b"]], n=1)
    (_group_id, _parent), children = reply
    assert len(children) == 2
    for (child, _), _ in children:
        ground.await_state(child, "completed")
        assert ground.record(child)["type"] == "celery.starmap"


def test_a_group_is_one_job_that_publishes_its_tasks_under_the_same_ids_each_time(
    ground: Ground,
) -> None:
    result = [["g", None], []]
    tasks = [signature(ground.same, "a"), signature(ground.same, "b")]
    job_id = ground.send("celery.group", [tasks, result, "g", []], {})
    ground.await_state(job_id, "completed")
    names = [f"{job_id}:0:{at}" for at in range(2)]
    space = uuid.UUID("8c8f6b0e-51f2-5a0c-9f0f-3b1f2d6f4c27")
    for name, expected in zip(names, "ab", strict=True):
        child = str(uuid.uuid5(space, name))
        ground.await_state(child, "completed")
        assert ground.await_result(child) == expected


def test_a_chord_is_one_job_and_its_body_runs_once(ground: Ground) -> None:
    body = {**signature(ground.total), "options": {"task_id": str(uuid.uuid4())}}
    header = [signature(ground.same, 1), signature(ground.same, 2)]
    job_id = ground.send("celery.chord", [header, body], {})
    ground.await_state(job_id, "completed")
    ground.await_state(body["options"]["task_id"], "completed")
    assert ground.await_result(body["options"]["task_id"]) == 3


def test_an_unlocked_chord_is_one_job_that_waits_as_retries(ground: Ground) -> None:
    first = str(uuid.uuid4())
    body = {**signature(ground.total), "options": {"task_id": str(uuid.uuid4())}}
    known = {"result": [[[first, None], None]], "interval": 0.2}
    job_id = ground.send("celery.chord_unlock", ["a group", body], known)
    eventually(lambda: "retry" in ground.events(job_id), "it waits for its header", why=ground.log)
    ground.send(ground.same, [7], {}, job_id=first)
    ground.await_state(job_id, "completed")
    ground.await_state(body["options"]["task_id"], "completed")
    assert ground.await_result(body["options"]["task_id"]) == 7


def test_a_cleanup_of_the_backend_is_one_job(ground: Ground) -> None:
    assert result_of(ground, "celery.backend_cleanup") is None


def test_a_chain_is_refused_with_a_letter_that_says_where_its_steps_belong(ground: Ground) -> None:
    letter = letter_of(ground, "celery.chain", signature(ground.same))
    assert (
        "celery.chain cannot run as a task: publish the chain's first task" in letter.error_message
    )


@pytest.mark.parametrize(
    ("task", "args", "kwargs", "says"),
    [
        ("celery.map", [], {}, "missing 2 required positional arguments"),
        ("celery.map", [5, 5], {}, "expected a signature (a mapping in which"),
        ("celery.map", [{"task": "nobody"}, [1]], {}, "nobody"),
        ("celery.starmap", [{}, [[1]]], {}, "expected a signature"),
        ("celery.chunks", [{"task": "nobody"}, [[1]], 0], {}, ""),
        ("celery.chunks", ["x"], {}, "missing 2 required positional arguments"),
        ("celery.accumulate", [1], {"index": 9}, "index out of range"),
        ("celery.group", ["tasks"], {}, "missing"),
        ("celery.group", [[5], [["g", None], []], "g", []], {}, "expected a signature"),
        ("celery.chord", [[{"task": "x"}]], {}, "missing 1 required positional argument: 'body'"),
        ("celery.chord_unlock", [], {}, "missing"),
        ("celery.chord_unlock", ["g", {"task": "x", "subtask_type": "y"}], {"result": [1]}, ""),
        ("celery.backend_cleanup", [1, 2], {}, "takes 0 positional arguments"),
    ],
)
def test_what_cannot_run_leaves_one_letter_that_says_why(
    ground: Ground, task: str, args: list[Any], kwargs: dict[str, Any], says: str
) -> None:
    letter = letter_of(ground, task, *args, **kwargs)
    assert says in letter.error_message
    assert letter.error_message


def test_a_map_whose_item_fails_leaves_one_letter(ground: Ground) -> None:
    letter = letter_of(ground, "celery.map", task=signature(ground.total), it=[[1], ["x"]])
    assert letter.error_class == "TypeError"
