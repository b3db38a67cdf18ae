"""What travels: the header that every message carries, the dead letter's envelope, redaction."""

from taskyard.wire.category import Category
from taskyard.wire.headers import HEADER, Stamp
from taskyard.wire.letters import Letter, RawMessage, letter_id
from taskyard.wire.redaction import redact, redact_url

__all__ = [
    "HEADER",
    "Category",
    "Letter",
    "RawMessage",
    "Stamp",
    "letter_id",
    "redact",
    "redact_url",
]
