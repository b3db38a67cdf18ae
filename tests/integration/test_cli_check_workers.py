"""`taskyard check` asks the workers that are up which job types they know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from servers import Servers
from support.shell import Shell
from support.worker import Worker, environment_of
from support.yard import fresh_settings


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_a_type_that_no_worker_knows_is_told_and_the_others_are_not(
    servers: Servers, start_worker: Callable[..., Worker], tmp_path: Path, kind: str
) -> None:
    url = servers.valkey_url()
    broker = url if kind == "redis" else servers.rabbitmq_url()
    settings = fresh_settings(url, broker_url=broker)
    start_worker(settings=settings).await_log(" ready.")
    types = tmp_path / "types.yaml"
    types.write_text("job_types:\n  paint:\n    queue: plan\n")
    shell = Shell(tmp_path, environment_of(settings))

    all_known = shell.run("check")
    one_more = shell.run("check", TASKYARD_JOB_TYPES=str(types))

    assert "✓ workers    know every job type (1 worker answered)\n" in all_known.out
    assert (
        "! workers    of 1 worker that answered none knows paint: such jobs become dead letters. "
    ) in one_more.out


def test_where_nobody_is_up_nobody_is_asked(servers: Servers, tmp_path: Path) -> None:
    settings = fresh_settings(servers.valkey_url())
    ran = Shell(tmp_path, environment_of(settings)).run("check")
    assert "no worker consumes any queue" in ran.out
    assert "know the job types" not in ran.out
    assert "know every job type" not in ran.out
