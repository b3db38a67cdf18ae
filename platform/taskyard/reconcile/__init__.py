"""Compare broker, records, letters and ledger, and repair what can be repaired without harm."""

from taskyard.reconcile.kinds import MEANINGS, Kind
from taskyard.reconcile.reconciler import Reconciler
from taskyard.reconcile.report import EXAMPLES, Report
from taskyard.reconcile.watch import accept, watch

__all__ = ["EXAMPLES", "MEANINGS", "Kind", "Reconciler", "Report", "accept", "watch"]
