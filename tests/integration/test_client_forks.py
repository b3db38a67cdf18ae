"""A client that was used before a fork, as by a web server that loads its app before it forks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from servers import Servers
from support.forked import CHILDREN
from support.worker import TESTS, Worker, environment_of
from support.yard import fresh_settings
from taskyard.settings import Settings


@pytest.fixture(params=["redis", "rabbitmq"])
def settings(request: pytest.FixtureRequest, servers: Servers) -> Settings:
    url = servers.valkey_url()
    broker = url if request.param == "redis" else servers.rabbitmq_url()
    return fresh_settings(url, broker_url=broker)


@pytest.mark.parametrize("parent", ["idle", "busy"])
def test_parent_and_children_use_it_in_every_way_at_once(
    parent: str, settings: Settings, start_worker: Callable[..., Worker]
) -> None:
    """`busy`: threads of the parent hold its locks and connections when it forks."""
    start_worker(queues=("exec",))
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("TASKYARD_")}
    done = subprocess.run(
        [sys.executable, "-m", "support.forked", parent],
        env={**inherited, **environment_of(settings), "PYTHONPATH": str(TESTS)},
        capture_output=True,
        check=False,
        timeout=200,
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    lines = sorted(json.loads(line) for line in done.stdout.splitlines())
    processes = range(0, 10 * (CHILDREN + 2), 10)
    assert lines == [[base + number for number in range(7)] for base in processes]
