"""The mirror: dead letters and the lifecycle stream, from the broker and Redis into Postgres."""

from taskyard.mirror.delivery_port import Delivery, LetterSource
from taskyard.mirror.mirror import Mirror, Mirrored
from taskyard.mirror.prefixed_letters import letter_source

__all__ = ["Delivery", "LetterSource", "Mirror", "Mirrored", "letter_source"]
