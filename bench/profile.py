"""Where the time of one job goes: samples of main process and children, sorted into steps.

It is real time: what a process waits for the server, or for a core that others have, included.
Only waiting for the next job is left out.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.apps.sampler import FOLDER_VARIABLE
from bench.contenders import TASKYARD
from bench.processes import Bench
from bench.throughput import await_level

__all__ = ["CHILD", "MAIN", "WAITING", "profile_job", "shares"]

Steps = Sequence[tuple[str, Sequence[str]]]
WAITING: Final = "waiting"
_REST: Final = "everything else"
_MAIN_FILE: Final = "main.json"
_CHILD_FILES: Final = "child-*.json"
# The sampler writes twice a second.
_SAMPLES_WITHIN_S: Final = 30.0

# A sample belongs to the step of its innermost frame that a step knows; the first step wins.
MAIN: Final[Steps] = (
    (WAITING, ("kombu.utils.eventio:_epoll.poll",)),
    ("events for Flower", ("celery.events.",)),
    (
        "message decoded, checked, turned into a request",
        (
            "taskyard.transport.stored_messages:",
            "taskyard.engine.consumer:",
            "taskyard.engine.request:JobRequest.__init__",
            "celery.worker.strategy:",
            "kombu.message:",
            "kombu.transport.virtual.base:Channel.basic_consume",
        ),
    ),
    (
        "pop and acknowledgements: one script a batch",
        (
            "taskyard.transport.",
            "kombu.transport.redis:MultiChannelPoller",
            "kombu.transport.redis:Transport",
            "kombu.transport.virtual.base:QoS",
        ),
    ),
    (
        "job into the child's pipe",
        (
            "celery.concurrency.asynpool:AsynPool",
            "celery.concurrency.base:",
            "celery.worker.request:create_request_cls.<locals>.Request.execute_using_pool",
            "billiard.pool:Pool.",
        ),
    ),
    (
        "result from the child: read, noted, acknowledged",
        (
            "celery.concurrency.asynpool:ResultHandler",
            "billiard.pool:",
            "celery.worker.request:",
            "celery.worker.state:",
            "taskyard.engine.",
        ),
    ),
    (
        "the event loop: sockets, timers",
        ("kombu.asynchronous.", "celery.concurrency.asynpool:", "celery.worker.loops:"),
    ),
)
CHILD: Final[Steps] = (
    (WAITING, ("billiard.connection:Connection._recv",)),
    (
        "`begin`: the right to run, one round trip",
        ("taskyard.records.attempt_scripts:AttemptScripts.begin",),
    ),
    (
        "`finish`: decision, result, history, one round trip",
        ("taskyard.records.attempt_scripts:AttemptScripts.finish",),
    ),
    ("job read from the pipe, answer written to it", ("billiard.",)),
    (
        "Taskyard's pipeline around the handler",
        ("taskyard.runner.", "taskyard.engine.", "taskyard.wire.", "taskyard.clock:"),
    ),
    ("Celery's tracing around it", ("celery.", "kombu.")),
)


def profile_job(bench: Bench, count: int) -> dict[str, dict[str, float]]:
    """Percent of the time that main process and children spend on a step while jobs are drained."""
    folder = bench.folder / "bench-samples"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    bench.empty()
    bench.send(TASKYARD, count, "noop", 1024, "send")
    variables = {FOLDER_VARIABLE: str(folder)}
    with bench.gauge(TASKYARD) as left, bench.workers(TASKYARD, variables) as workers:
        await_level(TASKYARD, left, 0, workers)
        _await_samples(folder, time.time())
    bench.empty()
    main, children = _read(folder, _MAIN_FILE), _read(folder, _CHILD_FILES)
    shutil.rmtree(folder)
    return {"main": shares(main, MAIN), "child": shares(children, CHILD)}


def shares(stacks: Mapping[str, int], steps: Steps) -> dict[str, float]:
    """Percent of each step, the largest first, waiting left out, the rest last.

    `stacks` are `module:function` joined by `;`, the innermost first, with how often each was seen.
    """
    seen: Counter[str] = Counter()
    for stack, count in stacks.items():
        seen[_step(stack.split(";"), steps)] += count
    del seen[WAITING]
    rest, total = seen.pop(_REST, 0), sum(seen.values())
    total += rest
    if not total:
        return {}
    ordered = [*seen.most_common(), (_REST, rest)]
    return {step: round(100 * count / total, 1) for step, count in ordered}


def _step(frames: Sequence[str], steps: Steps) -> str:
    for frame in frames:
        for step, beginnings in steps:
            if frame.startswith(tuple(beginnings)):
                return step
    return _REST


def _await_samples(folder: Path, since: float) -> None:
    """Wait until main process and children have written what they saw up to `since`.

    Raises TimeoutError.
    """
    for pattern in (_MAIN_FILE, _CHILD_FILES):
        until = time.monotonic() + _SAMPLES_WITHIN_S
        while not (found := [*folder.glob(pattern)]) or any(
            path.stat().st_mtime < since for path in found
        ):
            if time.monotonic() > until:
                text = f"{pattern} in {folder}: no samples in {_SAMPLES_WITHIN_S:g} s"
                raise TimeoutError(text)
            time.sleep(0.05)


def _read(folder: Path, pattern: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for path in folder.glob(pattern):
        found.update(json.loads(path.read_text("utf-8")))
    return found
