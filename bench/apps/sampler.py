"""Where a process is, asked by a timer: every two milliseconds of real time, waiting included."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

from celery import signals

__all__ = ["FOLDER_VARIABLE", "watch"]

FOLDER_VARIABLE: Final = "BENCH_SAMPLES"
_EVERY_S: Final = 0.002
# Workers of the bench are killed, so what was seen is written now and then.
_WRITE_EVERY: Final = 250


def watch() -> None:
    """Sample the worker's main process and its children if `BENCH_SAMPLES` names a folder."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        return

    def main(**_: Any) -> None:
        _start(Path(folder) / "main.json")

    def child(**_: Any) -> None:
        _start(Path(folder) / f"child-{os.getpid()}.json")

    signals.worker_ready.connect(main, weak=False)
    signals.worker_process_init.connect(child, weak=False)


def _start(path: Path) -> None:
    seen: Counter[str] = Counter()

    def look(_: int, frame: FrameType | None) -> None:
        seen[";".join(_names(frame))] += 1
        if sum(seen.values()) % _WRITE_EVERY == 0:
            # In one step: a worker that is killed here leaves a whole file.
            fresh = path.with_suffix(".new")
            fresh.write_text(json.dumps(seen), "utf-8")
            fresh.replace(path)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _EVERY_S, _EVERY_S)


def _names(frame: FrameType | None) -> Iterator[str]:
    """`module:function` of every frame, the innermost first."""
    while frame is not None:
        yield f"{frame.f_globals.get('__name__', '?')}:{frame.f_code.co_qualname}"
        frame = frame.f_back
