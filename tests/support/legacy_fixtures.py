"""The legacy app on either broker, for one test or for a whole module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from servers import Servers
from support.legacy import Legacy
from support.yard import fresh_settings

__all__ = ["BROKERS", "TRANSPORTS", "legacy_fixtures", "legacy_on"]

BROKERS: Final = ("redis", "rabbitmq")
# Redis under kombu's own transport too.
TRANSPORTS: Final = (*BROKERS, "redis by kombu")


@contextmanager
def legacy_on(
    broker: str,
    servers: Servers,
    folder: Path,
    mode: str = "protect",
    *,
    transport: bool | None = None,
    admit: bool = False,
    backend: str | None = None,
    kind: type[Legacy] = Legacy,
    **settings: Any,
) -> Iterator[Legacy]:
    """The app with a broker of `TRANSPORTS`; its records and results are in Valkey."""
    url = servers.valkey_url()
    at = servers.rabbitmq_url() if broker == "rabbitmq" else url
    if broker == "redis by kombu":
        transport = False
    given = fresh_settings(url, broker_url=at, **settings)
    app = kind(mode, at, backend or url, given, folder, transport=transport, admit=admit)
    try:
        yield app
    finally:
        app.close()


def legacy_fixtures(mode: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A module's fixtures `app`, which has a worker, on each broker, and `tasks`, its producer."""

    @pytest.fixture(scope="module", params=TRANSPORTS if mode == "protect" else BROKERS)
    def app(
        request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Legacy]:
        with legacy_on(request.param, servers, tmp_path_factory.mktemp(mode), mode) as legacy:
            legacy.worker()
            yield legacy

    @pytest.fixture(scope="module")
    def tasks(app: Legacy) -> Iterator[Any]:
        with app.producer() as module:
            yield module

    return app, tasks
