"""Protection in other pools than prefork, and with the transport that loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from servers import Servers
from support.legacy_fixtures import BROKERS, legacy_on
from support.waiting import SOON_S


@pytest.mark.parametrize("broker", BROKERS)
@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_another_pool_keeps_the_same_promises(
    broker: str, pool: str, servers: Servers, tmp_path: Path
) -> None:
    with legacy_on(broker, servers, tmp_path) as legacy:
        legacy.worker(pool, None, "-P", pool)
        with legacy.producer() as tasks:
            results = [tasks.once.delay() for _ in range(10)]
            assert [result.get(timeout=SOON_S) for result in results] == [1] * 10
            assert tasks.insist.delay(3).get(timeout=SOON_S) == [3, "xx", 2]
            assert tasks.become.delay("chain").get(timeout=SOON_S) == 42
            failed = tasks.fail.delay("in another pool")
            assert legacy.await_letter(failed.id).error_message == "in another pool"


@pytest.mark.parametrize("broker", BROKERS)
@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_another_pool_is_watched_as_prefork_is(
    broker: str, pool: str, servers: Servers, tmp_path: Path
) -> None:
    with legacy_on(broker, servers, tmp_path, "observe") as legacy:
        legacy.worker(pool, None, "-P", pool)
        with legacy.producer() as tasks:
            ended = tasks.insist.delay(3)
            assert ended.get(timeout=SOON_S) == [3, "xx", 2]
            legacy.await_state(ended.id, "completed")
            assert legacy.events(ended.id)[-1] == "complete"
            failed = tasks.fail.delay("in another pool")
            assert legacy.await_letter(failed.id).error_message == "in another pool"


def test_with_our_transport_a_killed_workers_job_is_back_in_seconds(
    servers: Servers, tmp_path: Path
) -> None:
    with legacy_on("redis", servers, tmp_path, lease_s=2) as legacy:
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
