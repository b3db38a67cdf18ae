"""The operator's verb after a restore: look, repair, open the gate, audited with the numbers."""

from __future__ import annotations

from sqlalchemy import Engine

from taskyard.audit import Action, Outcome
from taskyard.control import Identity
from taskyard.control.reasons import Mode, check_reason
from taskyard.control.verb import Attempt, attempting
from taskyard.reconcile.reconciler import BUDGET_S, Reconciler
from taskyard.reconcile.report import Report

__all__ = ["accept"]


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

    What was carried out before the restore is finished, what nothing is known of is refused, so
    that an open gate repeats nothing. Raises `NotPermitted`, `Refused`.
    """
    attempt = Attempt(Action.ACCEPT_RESTORE, identity, reason)
    with attempting(engine, attempt):
        attempt.permit()
        attempt.reason = check_reason(reason, require_reason)
        report = reconciler.run(repair=True, restored=True, budget_s=budget_s)
        with engine.begin() as connection:
            drift = {kind.value: count for kind, count in report.drift.items() if count}
            detail = {"gate": report.gate, "drift": drift, "complete": report.complete}
            attempt.write(connection, Outcome.APPLIED, detail)
            reconciler.gate.accept(connection)
    report.gate = None
    return report
