"""Abort in pools without processes: what can be stopped, and what the operator hears."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from sqlalchemy import Engine

from servers import Servers
from support.operated import working
from support.waiting import SOON_S
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
