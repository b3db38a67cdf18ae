"""A mirror as operators start it, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import create_engine, text

from bench.contenders import TASKYARD
from bench.processes import Bench, Workers

__all__ = ["forget", "mirror_process"]

_TABLES: Final = "dead_letter_queue, job_ledger, job_events"


@contextmanager
def mirror_process(bench: Bench, database_url: str) -> Iterator[Workers]:
    """`taskyard mirror` beside the block; killed at its end, and its rows are forgotten."""
    argv = [sys.executable, "-m", "taskyard.ops.cli", "mirror"]
    variables = {**bench.environment(TASKYARD), "TASKYARD_DATABASE_URL": database_url}
    log = bench.folder / "bench-logs" / "mirror.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        process = subprocess.Popen(  # noqa: S603 - our own
            argv, env=variables, cwd=bench.folder, stdout=out, stderr=out, start_new_session=True
        )
    workers = Workers([process])
    try:
        yield workers
    finally:
        workers.kill()
        forget(database_url)


def forget(database_url: str) -> None:
    """Empty what the mirror writes."""
    engine = create_engine(database_url)
    with engine.begin() as opened:
        opened.execute(text(f"TRUNCATE {_TABLES}"))
    engine.dispose()
