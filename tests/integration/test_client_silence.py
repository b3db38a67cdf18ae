"""Waiting for a result where Redis takes connections and says nothing."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import pytest

from servers import Servers
from support.proxy import Proxy, through
from support.yard import ServerHarness, fresh_settings
from taskyard.errors import ResultTimeout, ServerUnreachable

# What a slow machine may take beyond the promise, which is a second at most; a client without it
# is patient for more than five.
SLACK_S = 2.0


@pytest.fixture
def harness(proxy: Proxy, servers: Servers) -> Iterator[ServerHarness]:
    url = through(proxy, servers.valkey_url())
    opened = ServerHarness(fresh_settings(url))
    yield opened
    proxy.flow()
    opened.close()


@pytest.mark.parametrize("timeout", [0, 0.2, 1])
def test_the_wait_is_over_when_the_caller_said_so(
    harness: ServerHarness, proxy: Proxy, timeout: float
) -> None:
    job = harness.act()
    proxy.swallow()
    began = monotonic()
    with pytest.raises(ResultTimeout) as raised:
        job.result(timeout)
    assert monotonic() - began < timeout + SLACK_S
    assert str(raised.value) == (
        f"job {job.job_id}: Redis did not answer when {timeout:g} s were over, so it is unknown "
        "whether the job has ended. Ask again once Redis answers; `taskyard check` shows whether "
        "it does"
    )


def test_so_it_is_on_a_connection_that_was_never_made(harness: ServerHarness, proxy: Proxy) -> None:
    job = harness.act()
    harness.yard.records.client.connection_pool.disconnect()
    proxy.swallow()
    began = monotonic()
    with pytest.raises(ResultTimeout):
        job.result(0.2)
    assert monotonic() - began < 0.2 + SLACK_S


def test_a_longer_wait_hears_that_the_server_is_away(harness: ServerHarness, proxy: Proxy) -> None:
    job = harness.act()
    proxy.swallow()
    with pytest.raises(ServerUnreachable):
        job.result(60)


def test_after_the_silence_the_same_handle_goes_on(harness: ServerHarness, proxy: Proxy) -> None:
    job = harness.act()
    proxy.swallow()
    with pytest.raises(ResultTimeout, match="Redis did not answer"):
        job.result(0.1)
    proxy.flow()
    with pytest.raises(ResultTimeout, match=r"is still accepted after 5 s"):
        job.result(5)
