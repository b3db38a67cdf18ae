"""The gate: whether Redis and Postgres still agree, or one of them was restored."""

from taskyard.gate.restore_gate import BEAT_S, Gate, Mark, disagreement

__all__ = ["BEAT_S", "Gate", "Mark", "disagreement"]
