"""A reroute whose message has still to move was carried out, whatever operators do after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, update

from servers import Servers
from support.yard import ServerHarness, fresh_settings
from taskyard.access import Identity, Role
from taskyard.audit import rows_of
from taskyard.client import JobHandle
from taskyard.control import Control, VerbOutcome
from taskyard.database.tables import OUTBOX
from taskyard.gate import Gate
from taskyard.install import AnyQueuePublisher
from taskyard.jobs.states import State
from taskyard.relay import Relay

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

OPS = Identity("ops@example.com", via="token", role=Role.OPERATOR)
WHY = "The workers of this queue are down for maintenance today"
DONE = "Answered by hand"


class Scene:
    """An operator, and a relay that moves no message itself; no worker reads any queue."""

    def __init__(self, harness: ServerHarness, database: Engine) -> None:
        self.harness, self.database = harness, database
        records = harness.yard.records
        self.publisher = AnyQueuePublisher(harness.settings, records)
        gate = Gate(harness.settings.namespace, records.client)
        self.relay = Relay(harness.settings, database, records, self.publisher, gate)
        self.control = Control(database, records, OPS, wait_s=0)

    def relay_all(self) -> None:
        """Let the relay try each open request twice, without its waits."""
        for _ in range(2):
            with self.database.begin() as connection:
                connection.execute(update(OUTBOX).values(not_before=None))
            while self.relay.run_once():
                pass

    def act(self, verb: str, job: JobHandle) -> VerbOutcome:
        own = {"summary": DONE} if verb == "complete" else {}
        outcome: VerbOutcome = getattr(self.control, verb)(job.job_id, reason=WHY, **own)
        self.relay_all()
        return outcome

    def reroute(self, job: JobHandle, queue: str) -> VerbOutcome:
        outcome = self.control.reroute(job.job_id, queue, reason=WHY)
        self.relay_all()
        return outcome

    def outcomes(self, *requests: VerbOutcome) -> list[list[str]]:
        with self.database.connect() as connection:
            return [
                [row["outcome"] for row in rows_of(connection, request.request_id)]
                for request in requests
            ]


@pytest.fixture
def scene(servers: Servers, empty_database: Engine) -> Iterator[Scene]:
    harness = ServerHarness(fresh_settings(servers.valkey_url()))
    made = Scene(harness, empty_database)
    yield made
    made.publisher.close()
    harness.close()


@pytest.mark.parametrize(
    ("verb", "state"),
    [
        ("cancel", State.CANCELLED),
        ("abort", State.ABORTED),
        ("complete", State.COMPLETED),
    ],
)
def test_a_reroute_that_waits_for_its_message_is_applied_when_the_job_is_ended_meanwhile(
    scene: Scene, verb: str, state: State
) -> None:
    job = scene.harness.act()
    moved = scene.reroute(job, "plan")
    assert scene.outcomes(moved) == [["requested"]]
    ended = scene.act(verb, job)
    assert job.state() is state
    assert scene.outcomes(moved, ended) == [["requested", "applied"]] * 2


def test_a_reroute_that_waits_for_its_message_is_applied_when_the_job_is_rerouted_again(
    scene: Scene,
) -> None:
    job = scene.harness.act()
    first, second = scene.reroute(job, "plan"), scene.reroute(job, "locator")
    assert scene.outcomes(first, second) == [["requested", "applied"], ["requested"]]
    record = job.record()
    assert scene.harness.yard.records.requeued(job.job_id, record.epoch, record.generation)
    scene.relay_all()
    assert scene.outcomes(second) == [["requested", "applied"]]


def test_a_reroute_that_was_not_carried_out_is_withdrawn_by_a_newer_one(
    scene: Scene,
) -> None:
    job = scene.harness.act()
    first = scene.control.reroute(job.job_id, "plan", reason=WHY)
    late = scene.control.reroute(job.job_id, "locator", reason=WHY)
    scene.relay_all()
    withdrawn = f"refused: withdrawn by request {late.request_id}, which asks to reroute the job; "
    assert scene.outcomes(first) == [["requested", f"{withdrawn}nothing was done"]]
    assert (scene.outcomes(late), job.record().queue) == ([["requested"]], "locator")
