"""Compare broker, records, letters and ledger, and repair what can be repaired without harm."""

from taskyard.reconcile.inconsistency_kinds import MEANINGS, Kind
from taskyard.reconcile.periodic_check import accept, watch
from taskyard.reconcile.reconciler import Reconciler
from taskyard.reconcile.report import EXAMPLES, Report

__all__ = ["EXAMPLES", "MEANINGS", "Kind", "Reconciler", "Report", "accept", "watch"]
