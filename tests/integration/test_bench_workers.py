"""The bench's machinery against a real server: paused workers, the ledger's lag, the samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bench.contenders import CELERY, TASKYARD
from bench.growth import grown
from bench.ledger_lag import ledger_lag
from bench.paused_workers import paused_workers
from bench.processes import Bench, Workers
from bench.profile import profile_job
from bench.throughput import await_level

from servers import RedisServer
from support.waiting import eventually

pytestmark = pytest.mark.slow

JOBS = 60


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A bench with a server of its own: it forgets everything between its measurements."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    try:
        yield Bench(server.url, tmp_path)
    finally:
        server.stop()


def _paused(workers: Workers) -> bool:
    stats = [Path(f"/proc/{pid}/stat").read_text("utf-8") for pid in workers.pids()]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def test_paused_workers_take_nothing_until_they_run_again(bench: Bench) -> None:
    with bench.workers(TASKYARD) as workers, bench.gauge(TASKYARD) as left:
        bench.send(TASKYARD, JOBS, "noop", 10, "send")
        await_level(TASKYARD, left, 0, workers)
        workers.pause()
        eventually(lambda: _paused(workers), "every process of the worker is stopped")
        bench.send(TASKYARD, JOBS, "noop", 10, "send")
        assert left() == JOBS
        with workers.running():
            await_level(TASKYARD, left, 0, workers)
        eventually(lambda: _paused(workers), "every process of the worker is stopped")


def test_the_main_process_keeps_nothing_of_the_jobs_it_has_served(bench: Bench) -> None:
    """Its part of `make bench` serves 200,000; half a KiB a job would be 10 MiB here."""
    found = grown(bench, 20_000)
    assert found.growth_mib < 5


def test_turns_of_standing_workers_measure_both_and_leave_nothing(bench: Bench) -> None:
    with paused_workers(bench, (TASKYARD, CELERY)) as ready:
        for contender in (TASKYARD, CELERY, CELERY, TASKYARD):
            # So many that a loaded machine looks at the backlog while it shrinks.
            found = ready.turn(contender, JOBS * 10, "noop", 10)
            assert found.jobs_per_s > 0
            assert found.enqueued_per_s > 0
            assert found.pss_kib > 0
            with bench.gauge(contender) as left:
                assert left() == 0
    with bench.client(CELERY) as client:
        assert client.dbsize() == 0


def test_a_worker_that_ends_is_told_instead_of_waited_for(bench: Bench) -> None:
    broken = replace(TASKYARD, argv=("-c", "raise SystemExit(3)"))
    bench.send(broken, JOBS, "noop", 10, "send")
    with (
        bench.workers(broken) as workers,
        bench.gauge(broken) as left,
        pytest.raises(TimeoutError, match=f"Taskyard: {JOBS} jobs left, expected 0"),
    ):
        await_level(broken, left, 0, workers)


def test_the_ledger_has_every_job_and_its_lag_is_told(bench: Bench, database_url: str) -> None:
    found = ledger_lag(bench, database_url, JOBS * 5)
    assert found.jobs_missing == 0
    assert found.gaps == 0
    assert found.jobs_per_s > 0
    assert found.greatest_events <= found.jobs * 3


def test_the_time_of_a_job_is_shared_out_among_the_steps(bench: Bench) -> None:
    found = profile_job(bench, 600)
    for process in ("main", "child"):
        assert sum(found[process].values()) == pytest.approx(100, abs=1)
        # Where a step's frames are renamed, its time turns up here.
        assert found[process]["everything else"] < 15
    assert "`begin`: the right to run, one round trip" in found["child"]
    assert "pop and acknowledgements: one script a batch" in found["main"]
