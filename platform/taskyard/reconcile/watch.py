"""The periodic look: report only, in the log, as long as the process runs."""

from __future__ import annotations

import logging
import threading
from typing import Final

from redis.exceptions import RedisError

from taskyard.database.retry import repeat
from taskyard.errors import PublishFailed
from taskyard.reconcile.reconciler import Reconciler
from taskyard.reconcile.report import Report
from taskyard.wire.logs import logger

__all__ = ["EVERY_S", "watch"]

log = logger(__name__)

EVERY_S: Final = 60.0
# Less than a command's: nobody waits for it, and the servers have other work.
_BUDGET_S: Final = 10.0
_MOST_MESSAGES: Final = 20_000


def watch(reconciler: Reconciler, stop: threading.Event) -> None:
    """Compare every `EVERY_S` until `stop` is set; the first time after one interval."""

    def step() -> None:
        if not stop.wait(EVERY_S):
            _tell(reconciler.run(budget_s=_BUDGET_S, most_messages=_MOST_MESSAGES, stop=stop))

    repeat("reconcile", step, stop, also=(RedisError, PublishFailed))


def _tell(report: Report) -> None:
    found = {kind.value: count for kind, count in sorted(report.drift.items()) if count}
    level = logging.WARNING if found or report.gate else logging.INFO
    log.log(
        level,
        "reconcile: %d disagree of %d records%s%s",
        report.total,
        report.looked_at.get("records", 0),
        f" {found}; see: taskyard reconcile" if found else "",
        _limits(report),
        extra={"action": "reconcile_report", "drift": found, "complete": report.complete},
    )


def _limits(report: Report) -> str:
    limits = [] if report.complete else ["incomplete: the budget of time ended"]
    limits += report.unseen
    return f" ({'; '.join(limits)})" if limits else ""
