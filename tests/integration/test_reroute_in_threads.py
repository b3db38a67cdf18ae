"""Reroute where nothing can stop an attempt; apart, because each relay takes every intent."""

from __future__ import annotations

import uuid
from pathlib import Path

from sqlalchemy import Engine

from servers import Servers
from support.operated import OPS, WHY, working
from support.waiting import SOON_S, eventually
from taskyard.control import Control
from taskyard.jobs.states import State

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True


def test_an_attempt_in_a_pool_of_threads_runs_on_and_forwards_its_message_at_its_end(
    servers: Servers, database: Engine, tmp_path: Path
) -> None:
    with working("redis", servers, database, tmp_path, "--pool", "threads") as scene:
        gate = uuid.uuid4().hex
        job = scene.running(gate=gate, value=3)
        control = Control(database, scene.harness.yard.records, OPS)
        outcome = control.reroute(job.job_id, "plan", reason=WHY)
        assert (outcome.outcome, job.state()) == ("pending", State.REROUTED)
        scene.harness.open_gate(gate)
        eventually(lambda: len(scene.audited(outcome)) == 2, "the relay's answer")
        answer = scene.audited(outcome)[1]
        assert answer["outcome"] == "applied"
        assert answer["detail"]["attempt"].startswith("runs on, because its pool")
        assert (job.result(SOON_S), scene.harness.runs(job)) == (3, 2)
