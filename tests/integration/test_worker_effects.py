"""What a handler does outside: effects that apply once, and progress that is seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, text

from servers import Servers
from support import effects as effect_handlers
from support.waiting import eventually
from support.worker import HANDLERS, Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.client import JobHandle
from taskyard.database import engine
from taskyard.inbox import create_table
from taskyard.jobs.states import State
from taskyard.settings import Settings

TROUBLES = ["die after the commit", "fail after the commit", "die before the commit"]


@pytest.fixture
def settings(servers: Servers, database_url: str) -> Settings:
    return fresh_settings(servers.valkey_url(), database_url=database_url, lease_s=1)


@pytest.fixture
def effects(database_url: str) -> Iterator[Engine]:
    database = engine(database_url)
    with database.begin() as connection:
        create_table(connection)
        connection.execute(text("CREATE TABLE IF NOT EXISTS effects (job_id text, step text)"))
    yield database
    database.dispose()


def run(
    harness: ServerHarness, start_worker: Callable[..., Worker], **payload: object
) -> JobHandle:
    job = harness.yard.enqueue("effect_act", payload)
    start_worker(modules=(HANDLERS, effect_handlers.__name__))
    harness.await_end(job)
    harness.await_quiet()
    return job


def applied(database: Engine, job: JobHandle) -> list[str]:
    with database.connect() as connection:
        query = text("SELECT step FROM effects WHERE job_id = :job ORDER BY step")
        return list(connection.scalars(query, {"job": job.job_id}))


@pytest.mark.parametrize("trouble", TROUBLES)
def test_an_effect_under_once_applies_once_however_often_the_handler_runs(
    harness: ServerHarness, effects: Engine, start_worker: Callable[..., Worker], trouble: str
) -> None:
    job = run(harness, start_worker, trouble=trouble, once=True)
    assert job.state() is State.COMPLETED
    assert harness.runs(job) == 2
    assert applied(effects, job) == ["main", "second"]
    assert job.result(0) == (trouble == "die before the commit")


@pytest.mark.parametrize("trouble", TROUBLES[:2])
def test_the_same_effect_without_once_applies_twice(
    harness: ServerHarness, effects: Engine, start_worker: Callable[..., Worker], trouble: str
) -> None:
    job = run(harness, start_worker, trouble=trouble, once=False)
    assert harness.runs(job) == 2
    assert applied(effects, job) == ["main", "main", "second", "second"]


def test_progress_is_seen_through_the_handle_while_the_job_runs(
    harness: ServerHarness, start_worker: Callable[..., Worker]
) -> None:
    job = harness.act("report", gate="half", value=1)
    assert job.progress() == {}
    start_worker()
    eventually(job.progress, "progress")
    assert job.progress() == {"fraction": 0.5, "note": "half way"}
    assert job.state() is State.RUNNING
    harness.open_gate("half")
    assert job.result(30) == 1
