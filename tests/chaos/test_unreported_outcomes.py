"""The child decides, and cannot tell: the result backend is away just then. Nothing is lost."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import chain

from support.failing_backend import FOLDER_VARIABLE
from support.waiting import eventually
from support.worker import HANDLERS, Worker
from support.yard import ServerHarness
from taskyard.jobs.states import State
from taskyard.wire.letter_envelope import letter_id


@pytest.fixture
def arm(start_worker: Callable[..., Worker], tmp_path: Path) -> Callable[[str], None]:
    """Let the backend's next call of a method fail in the child."""
    folder = tmp_path / "armed"
    folder.mkdir()
    modules = ("support.failing_backend", HANDLERS)
    start_worker(modules=modules, environment={FOLDER_VARIABLE: str(folder)})
    return lambda method: (folder / method).touch()


def test_a_retry_that_could_not_be_told_runs_all_the_same(
    harness: ServerHarness, arm: Callable[[str], None]
) -> None:
    arm("mark_as_retry")
    job = harness.act("fail", "exec_act", times=1, value=5)
    assert harness.await_end(job) is State.COMPLETED
    harness.await_quiet()
    assert harness.event_names(job) == ["admit", "begin", "retry", "begin", "complete"]
    assert harness.runs(job) == 2


def test_a_death_that_could_not_be_told_leaves_its_letter(
    harness: ServerHarness, arm: Callable[[str], None]
) -> None:
    arm("mark_as_failure")
    job = harness.act("fail", "locator_act", code="hopeless")
    assert harness.await_end(job) is State.DEAD_LETTERED
    letters: Any = eventually(lambda: harness.letters_of(job), "its letter")
    assert letters[0]["letter_id"] == letter_id(job.job_id, job.record().epoch, 0)
    harness.await_quiet()
    assert harness.runs(job) == 1


def test_a_success_that_could_not_be_told_goes_on_to_the_next_link_once(
    harness: ServerHarness, arm: Callable[[str], None]
) -> None:
    app, second = harness.yard.app, str(uuid.uuid4())
    arm("mark_as_done")
    links = chain(
        app.signature("exec_act", args=[{"value": {"value": 8}}]),
        app.signature("exec_act").set(task_id=second),
    )
    assert links().get(timeout=30) == 8
    harness.await_quiet()
    assert harness.runs(second) == 1
