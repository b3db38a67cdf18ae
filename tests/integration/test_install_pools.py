"""Protection in other pools than prefork, and with the transport that loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from servers import Servers
from support.legacy import Legacy
from support.waiting import SOON_S
from support.yard import fresh_settings


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_another_pool_keeps_the_same_promises(servers: Servers, tmp_path: Path, pool: str) -> None:
    url = servers.valkey_url()
    legacy = Legacy("protect", url, url, fresh_settings(url), tmp_path)
    try:
        legacy.worker(pool, None, "-P", pool)
        with legacy.producer() as tasks:
            results = [tasks.once.delay() for _ in range(10)]
            assert [result.get(timeout=SOON_S) for result in results] == [1] * 10
            assert tasks.insist.delay(3).get(timeout=SOON_S) == [3, "xx", 2]
            assert tasks.become.delay("chain").get(timeout=SOON_S) == 42
            failed = tasks.fail.delay("in another pool")
            assert legacy.await_letter(failed.id).error_message == "in another pool"
    finally:
        legacy.close()


def test_with_our_transport_a_killed_workers_job_is_back_in_seconds(
    servers: Servers, tmp_path: Path
) -> None:
    url = servers.valkey_url()
    legacy = Legacy("protect", url, url, fresh_settings(url, lease_s=2), tmp_path, transport=True)
    try:
        worker = legacy.worker("first")
        with legacy.producer() as tasks:
            gate = f"g-{legacy.prefix}"
            result = tasks.gated.delay(gate)
            legacy.await_notes(f"{result.id}:runs", 1)
            worker.kill()
            legacy.worker("second")
            legacy.await_notes(f"{result.id}:runs", 2)
            legacy.open_gate(gate, 2)
            assert result.get(timeout=SOON_S) == 2
    finally:
        legacy.close()
