"""The periodic comparison of all stores: it writes only log lines and repairs nothing."""

from __future__ import annotations

import logging
import threading
from typing import Final

from redis.exceptions import RedisError
from sqlalchemy import Engine

from taskyard.access import Action, Identity
from taskyard.audit import Outcome
from taskyard.control.operator_reasons import Mode, check_reason
from taskyard.control.operator_verb import VerbCall, audited
from taskyard.database.outage_retry import repeat
from taskyard.errors import PublishFailed
from taskyard.reconcile.reconciler import BUDGET_S, Reconciler
from taskyard.reconcile.report import Report
from taskyard.wire.redacted_logs import logger

__all__ = ["EVERY_S", "accept", "watch"]

log = logger(__name__)

EVERY_S: Final = 60.0
# Less than a command's: no person waits for it, and the servers have other work.
_BUDGET_S: Final = 10.0
_MOST_MESSAGES: Final = 20_000


def accept(
    reconciler: Reconciler,
    engine: Engine,
    identity: Identity,
    reason: str | None,
    *,
    require_reason: Mode = "strict",
    budget_s: float = BUDGET_S,
) -> Report:
    """Compare and repair once, then let relays publish again.

    Intents that were carried out before the restore are finished, and intents of unknown jobs are
    refused. So after the gate opens, no action is repeated. Raises `NotPermitted`, `Refused`.
    """
    call = VerbCall(Action.ACCEPT_RESTORE, identity, reason)
    with audited(engine, call):
        call.permit()
        call.reason = check_reason(reason, require_reason)
        report = reconciler.run(repair=True, restored=True, budget_s=budget_s)
        with engine.begin() as connection:
            drift = {kind.value: count for kind, count in report.drift.items() if count}
            detail = {"gate": report.gate, "drift": drift, "complete": report.complete}
            call.write(connection, Outcome.APPLIED, detail)
            reconciler.gate.accept(connection)
    report.gate = None
    return report


def watch(reconciler: Reconciler, stop: threading.Event) -> None:
    """Compare every `EVERY_S` until `stop` is set; the first time after one interval."""

    def step() -> None:
        if not stop.wait(EVERY_S):
            _log_report(reconciler.run(budget_s=_BUDGET_S, most_messages=_MOST_MESSAGES, stop=stop))

    repeat("reconcile", step, stop, also=(RedisError, PublishFailed))


def _log_report(report: Report) -> None:
    found = {kind.value: count for kind, count in sorted(report.drift.items()) if count}
    level = logging.WARNING if found or report.gate else logging.INFO
    log.log(
        level,
        "reconcile: %d disagreements in %d records%s%s",
        report.total,
        report.looked_at.get("records", 0),
        f" {found}; see: taskyard reconcile" if found else "",
        _limits(report),
        extra={"action": "reconcile_report", "drift": found, "complete": report.complete},
    )


def _limits(report: Report) -> str:
    limits = [] if report.complete else ["incomplete: the time budget ended"]
    limits += report.unseen
    return f" ({'; '.join(limits)})" if limits else ""
