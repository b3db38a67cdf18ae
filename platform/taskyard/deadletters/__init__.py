"""Dead letters: the exchange, building the envelope, and confirmed publishing."""

from taskyard.deadletters.build import build_letter, shown_arguments
from taskyard.deadletters.kept import KeptLetters
from taskyard.deadletters.prefixes import LetterPrefixes
from taskyard.deadletters.publish import LetterBox, count_waiting
from taskyard.deadletters.topology import exchange, mirror_queue

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
