"""A control command one of whose workers is killed: each job meets it once, with one audit pair."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from servers import Servers
from support.command_seams import STEPS
from support.seams import FOLDER_VARIABLE, arm, is_armed
from support.waiting import eventually
from support.worker import HANDLERS, Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.jobs.states import State
from taskyard.records.command_events import COMMAND_FIELD, CommandEvent

pytestmark = pytest.mark.slow

SEAMS = [f"{side} {step}" for step in STEPS for side in ("before", "after")]


@pytest.mark.parametrize(
    "seam", [f"{side} {step}" for step in STEPS for side in ("before", "after")]
)
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_revocation_whose_first_worker_is_killed_is_carried_out_by_another(
    servers: Servers, tmp_path: Path, broker: str, seam: str
) -> None:
    url, armed = servers.valkey_url(), tmp_path / "armed"
    armed.mkdir()
    at = url if broker == "redis" else servers.rabbitmq_url()
    settings = fresh_settings(url, broker_url=at)
    harness = ServerHarness(settings)
    arm(armed, seam)

    def events() -> list[CommandEvent]:
        entries = harness.redis.xrange(f"{settings.namespace}:lifecycle")
        return [CommandEvent.parse(fields) for _, fields in entries if COMMAND_FIELD in fields]

    with ExitStack() as running:
        workers = [
            Worker(
                settings,
                tmp_path / name,
                queues=("plan",),
                modules=("support.seams", "support.command_seams", HANDLERS),
                options=("--pool", "solo"),
                environment={FOLDER_VARIABLE: str(armed)},
                name=name,
            )
            for name in ("one", "two")
        ]
        for worker in workers:
            running.enter_context(worker.start())
        job = harness.act()
        harness.yard.app.control.revoke(job.job_id)
        eventually(
            lambda: len(events()) == 2 and not is_armed(armed, seam),
            "a request and an outcome",
            why=lambda: "\n".join(worker.log[-2000:] for worker in workers),
        )
        request, outcome = events()
        assert (request.outcome, outcome.outcome, outcome.broadcast) == (
            "", "applied", request.broadcast,
        )  # fmt: skip
        assert job.state() is State.CANCELLED
        assert harness.event_names(job) == ["admit", "cancel"]
    harness.close()
