"""Message formats: the header of every message, the dead letter's envelope, and redaction."""

from taskyard.wire.category import Category
from taskyard.wire.exact import clean_text, pack, unpack
from taskyard.wire.headers import HEADER, Stamp
from taskyard.wire.letters import Letter, RawMessage, letter_id
from taskyard.wire.redaction import redact, redact_text, redact_url

__all__ = [
    "HEADER",
    "Category",
    "Letter",
    "RawMessage",
    "Stamp",
    "clean_text",
    "letter_id",
    "pack",
    "redact",
    "redact_text",
    "redact_url",
    "unpack",
]
