"""The processes of `taskyard up`, as the commands that one would type."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Final

from taskyard.settings import Settings

__all__ = ["processes"]

_SELF: Final = (sys.executable, "-m", "taskyard.ops.cli")
# One machine has no other workers to exchange events with.
_ALONE: Final = ("--without-gossip", "--without-mingle")
# The runner puts time and name before each line, so Celery need not.
_PLAIN_LOG: Final = (
    "--",
    "worker.redirect_stdouts=false",
    "worker.log_format=%(levelname)s %(message)s",
    "worker.task_log_format=%(levelname)s %(task_name)s[%(task_id)s] %(message)s",
)
_RESERVED: Final = ("mirror", "relay", "system")


def processes(
    settings: Settings, *, workers: bool, concurrency: int
) -> Mapping[str, Sequence[str]]:
    """Name to words: mirror, relay and, unless `workers` is off, one worker for each queue."""
    found: dict[str, Sequence[str]] = {"mirror": [*_SELF, "mirror"], "relay": [*_SELF, "relay"]}
    if workers:
        for queue in settings.queues:
            options = ["--pool", queue, "--concurrency", str(concurrency), "--quiet"]
            name = f"worker-{queue}" if queue in _RESERVED else queue
            found[name] = [*_SELF, "worker", *options, *_ALONE, *_PLAIN_LOG]
    return found
