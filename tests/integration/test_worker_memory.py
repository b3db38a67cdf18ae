"""A process that is killed while it holds much memory: the record says how much."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable

from support.waiting import eventually
from support.worker import Worker
from support.yard import House
from taskyard.engine.memory_watch import INTERVAL_S
from taskyard.jobs.states import State

HOARD_MIB = 200


def test_a_poison_jobs_evidence_names_the_memory_of_the_process_that_was_killed(
    house: House, start_worker: Callable[..., Worker]
) -> None:
    start_worker("one", concurrency=1)
    job = house.act(do="hoard", value=HOARD_MIB, gate="never")
    for run in (1, 2, 3):
        eventually(lambda run=run: house.runs(job) == run, f"run {run} has begun", within_s=60)
        # The worker looks twice a second, and may have looked before the memory was there.
        time.sleep(3 * INTERVAL_S)
        os.kill(house.notes.run_facts(job.job_id)[-1]["pid"], signal.SIGKILL)
    assert house.await_end(job) is State.DEAD_LETTERED
    evidence = job.record().cause["evidence"]["last_evidence"]
    assert "signal 9 (SIGKILL)" in evidence
    held = re.search(r"it held (\d+) MiB of memory when last seen, \d+\.\d s before", evidence)
    assert held is not None, evidence
    assert HOARD_MIB < int(held[1]) < 2 * HOARD_MIB
