"""Abort where it differs: pools without processes, and apps whose results are elsewhere."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from sqlalchemy import Engine

from servers import Servers
from support.legacy_fixtures import legacy_on
from support.legacy_operator import Operator, running
from support.operated import working
from support.relay import relaying
from support.waiting import SOON_S, eventually
from taskyard.jobs.states import State

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True


@pytest.mark.parametrize("pool", ["threads", "solo", "gevent"])
def test_in_a_pool_without_processes_the_answer_says_what_became_of_the_attempt(
    pool: str, servers: Servers, empty_database: Engine, tmp_path: Path
) -> None:
    options = ("--pool", pool, "--concurrency", "1")
    with working("redis", servers, empty_database, tmp_path, *options) as scene:
        gate = uuid.uuid4().hex
        job = scene.running(gate=gate)
        outcome = scene.abort(job)
        said = "was stopped" if pool == "gevent" else "runs on, because its pool"
        assert outcome.outcome == "applied"
        assert outcome.attempt.startswith(said)
        scene.harness.open_gate(gate)
        after = scene.harness.act(value="next")
        assert after.result(SOON_S) == "next"
        assert (job.state(), scene.harness.runs(job)) == (State.ABORTED, 1)


def test_results_in_another_store_hear_of_it_when_a_worker_sees_the_message(
    servers: Servers, empty_database: Engine, tmp_path: Path
) -> None:
    backend = f"db+sqlite:///{tmp_path}/results.sqlite"
    with (
        legacy_on("redis", servers, tmp_path, backend=backend) as app,
        relaying(app.settings, empty_database),
        app.producer() as tasks,
    ):
        waiting = tasks.once.delay()
        operator = Operator(app, empty_database)
        assert operator.complete(waiting.id, "by hand").outcome == "applied"
        app.worker()
        assert waiting.get(timeout=SOON_S) == "by hand"
        result, _ = running(app, tasks)
        assert operator.abort(result.id).attempt == "was stopped"
        eventually(lambda: result.state == "REVOKED", "its end", why=app.logs)
        operator.client.close()
