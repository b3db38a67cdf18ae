"""Every test of the suite runs on each stage; those of servers live as long as the session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from conformance.memory import MemoryStage
from conformance.servers_stage import ServersStage
from conformance.stage import Stage
from servers import Servers


@pytest.fixture(scope="session")
def server_stage(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Stage]]:
    with ExitStack() as running:
        opened: dict[str, Stage] = {}

        def get(name: str) -> Stage:
            if name not in opened:
                folder = tmp_path_factory.mktemp(name)
                opened[name] = running.enter_context(ServersStage.opened(name, servers, folder))
            return opened[name]

        yield get


@pytest.fixture(params=["memory", "redis", "rabbitmq"])
def stage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    """One stage after the other."""
    if request.param == "memory":
        with MemoryStage.opened(tmp_path, monkeypatch) as memory:
            yield memory
        return
    yield request.getfixturevalue("server_stage")(request.param)
