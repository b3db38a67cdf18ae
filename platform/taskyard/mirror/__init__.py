"""The mirror: dead letters and the lifecycle stream, from the broker and Redis into Postgres."""

from taskyard.mirror.deliveries import Delivery, LetterSource
from taskyard.mirror.mirror import Mirror, Mirrored

__all__ = ["Delivery", "LetterSource", "Mirror", "Mirrored"]
