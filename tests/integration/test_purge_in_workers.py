"""A purge beside busy workers: every job runs or is cancelled, and none is lost."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from time import monotonic

import pytest
from celery import chord
from celery.exceptions import ChordError
from sqlalchemy import Engine, select

from servers import Servers
from support.purging import BROKERS, PurgeScene, purging
from support.relay import relaying
from support.waiting import eventually
from support.worker import Worker
from taskyard.client import JobHandle
from taskyard.database.tables import AUDIT
from taskyard.jobs.states import State

pytestmark = pytest.mark.slow

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True


@pytest.mark.parametrize("broker", BROKERS)
def test_beside_busy_workers_every_job_runs_or_is_cancelled(
    broker: str, servers: Servers, empty_database: Engine, tmp_path: Path
) -> None:
    with (
        purging(broker, servers, empty_database) as scene,
        relaying(scene.settings, empty_database),
    ):
        worker = Worker(scene.settings, tmp_path, queues=("exec",))
        with worker.start():
            jobs = scene.enqueue_many(1500)
            eventually(lambda: any(scene.harness.runs(job) for job in jobs), "the worker works")
            counts = scene.purge().counts
            assert counts.cancelled > 100
            for job in jobs:
                scene.harness.await_end(job)
            eventually(lambda: scene.depth() == 0, "no message is left", why=lambda: worker.log)
            eventually(lambda: scene.open_intents() == 0, "every request is answered")
        events, answers = events_by_job(scene), answers_by_job(scene)
        for job in jobs:
            check_one_end(scene, job, events[job.job_id], answers[job.job_id])
        ended = Counter(job.state() for job in jobs)
        assert set(ended) == {State.COMPLETED, State.CANCELLED}
        assert ended[State.CANCELLED] >= counts.cancelled


def events_by_job(scene: PurgeScene) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for event in scene.harness.events():
        found[event["job"]].append(event["event"])
    return found


def answers_by_job(scene: PurgeScene) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    with scene.database.connect() as connection:
        query = select(AUDIT.c.target_request_id, AUDIT.c.outcome).order_by(AUDIT.c.id)
        for job_id, outcome in connection.execute(query):
            found[job_id].append(outcome)
    return found


def check_one_end(scene: PurgeScene, job: JobHandle, events: list[str], answers: list[str]) -> None:
    """A completed job ran once; a cancelled one did not, or its attempt was asked to stop."""
    runs = scene.harness.runs(job)
    if job.state() is State.COMPLETED:
        assert runs == 1, events
        assert "applied" not in answers, answers
    else:
        assert runs == 0 or "request_cancel" in events, events
        assert answers[0] == "requested", answers
        assert "applied" in answers, answers


@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")
@pytest.mark.parametrize("broker", BROKERS)
def test_a_chord_whose_parts_are_purged_fails(
    broker: str, servers: Servers, empty_database: Engine
) -> None:
    with purging(broker, servers, empty_database) as scene:
        app = scene.harness.yard.app
        queue = scene.settings.broker_name("exec")
        part = app.signature("exec_act", args=({"do": "return"},), queue=queue)
        result = chord([part.clone(), part.clone()], app=app)(part.clone())
        eventually(lambda: scene.depth() == 2, "the header waits")
        assert scene.purge().counts.cancelled == 2
        eventually(lambda: result.state == "FAILURE", "the chord fails")
        assert type(result.result) is ChordError


@pytest.mark.parametrize("broker", BROKERS)
def test_ten_thousand_jobs_are_purged_in_well_under_a_minute(
    broker: str, servers: Servers, empty_database: Engine
) -> None:
    with purging(broker, servers, empty_database) as scene:
        jobs = scene.enqueue_many(10_000)
        began_s = monotonic()
        outcome = scene.purge()
        took_s = monotonic() - began_s
        assert (outcome.counts.cancelled, outcome.remaining, scene.depth()) == (10_000, 0, 0)
        assert took_s < 40, f"10,000 jobs took {took_s:.1f} s"
        assert {job.state() for job in jobs} == {State.CANCELLED}
        assert scene.open_intents() == 0
