"""Message formats: the header of every message, the dead letter's envelope, and redaction."""

from taskyard.wire.letter_categories import Category
from taskyard.wire.letter_envelope import Letter, RawMessage, letter_id
from taskyard.wire.lossless_json import clean_text, pack, unpack
from taskyard.wire.redaction import redact, redact_text, redact_url
from taskyard.wire.stamp_header import HEADER, Stamp

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
