"""What the Redis client says names the setting that is wrong."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as NotConnected

from taskyard.errors import InvalidSettings, ServerUnreachable
from taskyard.store import BROKER, RECORDS, connect, reachable


@pytest.mark.parametrize("variable", [RECORDS, BROKER])
@pytest.mark.parametrize("url", ["redis://:a#b@host:6379/0", "sentinel://host"])
def test_a_url_that_cannot_be_read_is_told_by_its_variable(url: str, variable: str) -> None:
    with pytest.raises(InvalidSettings, match=f"^{variable}: "):
        connect(url, variable=variable)


@pytest.mark.parametrize("variable", [RECORDS, BROKER])
def test_a_server_that_is_away_is_told_by_its_variable(variable: str) -> None:
    refused = pytest.raises(ServerUnreachable, match=f"correct {variable};")
    with refused, reachable("redis://host/0", variable=variable):
        raise NotConnected("refused")
