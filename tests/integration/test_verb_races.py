"""Races of operators and workers: exactly one wins, and every caller gets the true answer."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
import redis
from sqlalchemy import Engine

from support.operated import DONE, OPS, WHY
from support.relay import relaying
from support.waiting import SOON_S
from taskyard.control import Control, VerbOutcome
from taskyard.errors import Refused
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.jobs.states import State
from taskyard.records import Records, Run
from taskyard.records.script_replies import Finished
from taskyard.settings import Settings
from taskyard.wire import Stamp

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

JOBS: Final = 16
ENDS: Final = {
    "cancel": State.CANCELLED,
    "abort": State.ABORTED,
    "complete": State.COMPLETED,
}


class Harness:
    """Jobs in their records and a running relay; the test is worker and operators."""

    def __init__(self, settings: Settings, database: Engine) -> None:
        self.client = redis.Redis.from_url(settings.need_redis_url())
        self.records = Records(self.client, settings)
        self.control = Control(database, self.records, OPS, wait_s=SOON_S)

    def queued(self) -> tuple[str, Stamp]:
        job_id = str(uuid.uuid4())
        made = self.records.admit(job_id, job_type="t", queue="exec", priority=3, unique_for_s=0)
        return job_id, Stamp(made.epoch)

    def running(self) -> tuple[str, Run]:
        job_id, stamp = self.queued()
        run = self.records.attempts.begin(
            job_id, stamp, holder="h", worker="w@host", process="1", job_type="t", queue="exec"
        )
        assert isinstance(run, Run)
        return job_id, run

    def finish(self, job_id: str, run: Run) -> bool:
        """Whether the worker's outcome was recorded."""
        place: dict[str, Any] = {"epoch": run.epoch, "generation": run.generation, "seq": run.seq}
        done = self.records.attempts.finish(
            job_id, Decision.COMPLETED, token=run.token, result=b"{}", **place
        )
        return isinstance(done, Finished)

    def act(self, verb: str, job_id: str) -> str:
        """The outcome that the operator hears."""
        try:
            return self._act(verb, job_id).outcome
        except Refused:
            return "refused"

    def _act(self, verb: str, job_id: str) -> VerbOutcome:
        if verb == "complete":
            return self.control.complete(job_id, reason=WHY, summary=DONE)
        outcome: VerbOutcome = getattr(self.control, verb)(job_id, reason=WHY)
        return outcome

    def state(self, job_id: str) -> State:
        return self.records.read(job_id).state


@pytest.fixture
def harness(settings: Settings, empty_database: Engine) -> Iterator[Harness]:
    made = Harness(settings, empty_database)
    with relaying(settings, empty_database):
        yield made
    made.client.close()


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """The answers of calls that begin at the same moment, each in a thread."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


@pytest.mark.parametrize("verb", ["abort", "complete"])
def test_of_an_operator_who_ends_a_job_and_its_worker_that_finishes_it_one_wins(
    harness: Harness, verb: str
) -> None:
    jobs = [harness.running() for _ in range(JOBS)]
    finishing = [lambda job=job: harness.finish(*job) for job in jobs]
    ending = [lambda job_id=job_id: harness.act(verb, job_id) for job_id, _ in jobs]
    answers = at_once([*finishing, *ending])
    for (job_id, _), finished, heard in zip(jobs, answers[:JOBS], answers[JOBS:], strict=True):
        assert (heard == "applied") is not finished
        assert heard in ("applied", "refused")
        assert harness.state(job_id) is (State.COMPLETED if finished else ENDS[verb])


@pytest.mark.parametrize("begun", [False, True], ids=["queued", "running"])
def test_of_operators_with_different_verbs_on_one_job_one_wins(
    harness: Harness, begun: bool
) -> None:
    job_id = harness.running()[0] if begun else harness.queued()[0]
    verbs = ["abort", "complete"] * (JOBS // 2) if begun else [*ENDS] * (JOBS // 3)
    heard = at_once([lambda verb=verb: harness.act(verb, job_id) for verb in verbs])
    applied = [verb for verb, outcome in zip(verbs, heard, strict=True) if outcome == "applied"]
    assert set(heard) <= {"applied", "refused"}
    # Whoever cancels a job that is cancelled hears that it is; all other verbs are refused then.
    assert len(applied) == 1 or set(applied) == {"cancel"}
    assert harness.state(job_id) is ENDS[applied[0]]
