"""A process that is killed while it holds much memory: the record says how much."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable

from support.waiting import eventually
from support.worker import HANDLERS, Worker
from support.yard import ServerHarness
from taskyard.jobs.states import State

HOARD_MIB = 200


def test_a_poison_jobs_evidence_names_the_memory_of_the_process_that_was_killed(
    harness: ServerHarness, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker("one", concurrency=1, modules=("support.memory_looks", HANDLERS))
    job = harness.act(do="hoard", value=HOARD_MIB, gate="never")
    for run in (1, 2, 3):
        eventually(lambda run=run: harness.runs(job) == run, f"run {run} has begun", within_s=60)
        pid = harness.notes.run_facts(job.job_id)[-1]["pid"]
        eventually(lambda pid=pid: held(worker, pid) > HOARD_MIB, "a look at the hoard")
        os.kill(pid, signal.SIGKILL)
    assert harness.await_end(job) is State.DEAD_LETTERED
    evidence = job.record().cause["evidence"]["last_evidence"]
    assert "signal 9 (SIGKILL)" in evidence
    seen = re.search(r"it used (\d+) MiB of memory when last measured, \d+\.\d s before", evidence)
    assert seen is not None, evidence
    assert HOARD_MIB < int(seen[1]) < 2 * HOARD_MIB


def held(worker: Worker, pid: int) -> int:
    """MiB of the process at the worker's last look, 0 before the first."""
    looks = re.findall(rf"process {pid} held (\d+) MiB", worker.log)
    return int(looks[-1]) if looks else 0
