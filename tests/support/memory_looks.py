"""For a worker under test: its log says what each look at a job's process found."""

from __future__ import annotations

from collections.abc import Mapping

from taskyard.engine.pool_process_memory import ProcessMemory
from taskyard.wire.redacted_logs import logger

log = logger(__name__)

_look = ProcessMemory.look


def _look_and_log(memory: ProcessMemory, running: Mapping[str, int]) -> None:
    _look(memory, running)
    for job_id, seen in memory._looks.items():
        log.info("process %d held %d MiB", running[job_id], seen.resident // 1_048_576)


ProcessMemory.look = _look_and_log  # type: ignore[method-assign]
