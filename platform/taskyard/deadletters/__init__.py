"""Dead letters: the exchange, building the envelope, and confirmed publishing."""

from taskyard.deadletters.dead_letter_exchange import exchange, mirror_queue
from taskyard.deadletters.key_prefixes import LetterPrefixes
from taskyard.deadletters.letter_copies import KeptLetters
from taskyard.deadletters.letter_from_record import build_letter, shown_arguments
from taskyard.deadletters.publish_letter import LetterBox, count_waiting

__all__ = [
    "KeptLetters",
    "LetterBox",
    "LetterPrefixes",
    "build_letter",
    "count_waiting",
    "exchange",
    "mirror_queue",
    "shown_arguments",
]
