"""The gate: it closes when Redis and Postgres disagree, because one of them was restored."""

from taskyard.gate.restore_gate import BEAT_S, Gate, Mark, disagreement

__all__ = ["BEAT_S", "Gate", "Mark", "disagreement"]
