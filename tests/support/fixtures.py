"""What every test may ask for: one Valkey and one Postgres a session, a namespace a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from sqlalchemy import Engine

from servers import RedisServer, Servers
from support.databases import migrated_database, owner_url, runtime_database
from support.dated import dated, truncate
from support.proxy import Proxy
from support.shell import Shell, connected_shell
from support.worker import Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.database import opened as opened_database
from taskyard.settings import Settings

# Two cores may be busy with other work: a slow example is no fault of the code that draws it.
hypothesis_settings.register_profile(
    "taskyard", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("taskyard")


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with Servers(tmp_path_factory.mktemp("servers")) as running:
        yield running


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of one test's own, to be restarted, filled or cut off."""
    started = RedisServer(tmp_path / "server")
    started.start()
    yield started
    started.stop()


@pytest.fixture
def proxy(servers: Servers) -> Iterator[Proxy]:
    """A way to Valkey that can be cut, silenced or delayed."""
    direct = urlsplit(servers.valkey_url())
    with Proxy(str(direct.hostname), int(direct.port or 0)) as running:
        yield running


@pytest.fixture
def settings(servers: Servers) -> Settings:
    """Records and broker in one Valkey, under a namespace of this test's own."""
    return fresh_settings(servers.valkey_url())


@pytest.fixture
def harness(settings: Settings) -> Iterator[ServerHarness]:
    """On the servers of `settings`; a module that wants others has its own fixture of that name."""
    opened = ServerHarness(settings)
    yield opened
    opened.close()


@pytest.fixture
def start_worker(settings: Settings, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Start workers that end with the test; arguments are the fields of `Worker`."""
    with ExitStack() as running:

        def start(name: str = "worker", **fields: Any) -> Worker:
            worker = Worker(fields.pop("settings", settings), tmp_path, name=name, **fields)
            return running.enter_context(worker.launch())

        yield start


@pytest.fixture(scope="module")
def database_url(request: pytest.FixtureRequest, servers: Servers) -> str:
    """A migrated database of this module's own.

    By its owner; by the role that mirror, relay and operators have, where the module says
    `AS_RUNTIME = True`.
    """
    as_runtime = getattr(request.module, "AS_RUNTIME", False)
    return runtime_database(servers) if as_runtime else migrated_database(servers)


@pytest.fixture(scope="module")
def database(database_url: str) -> Iterator[Engine]:
    """Its engine; the week of the letters and jobs that tests date has its partitions."""
    with dated(database_url) as opened:
        yield opened


@pytest.fixture
def empty_database(servers: Servers, database: Engine) -> Engine:
    """The module's database without the letters, intents and jobs of the tests before."""
    with opened_database(
        owner_url(servers, database.url.render_as_string(hide_password=False))
    ) as owner:
        truncate(owner)
    return database


@pytest.fixture
def bare_shell(tmp_path: Path) -> Shell:
    """One without any setting."""
    return Shell(tmp_path)


@pytest.fixture
def shell(tmp_path: Path, servers: Servers, database_url: str) -> Shell:
    """One with servers, in a namespace of its own."""
    return connected_shell(tmp_path, servers, database_url)
