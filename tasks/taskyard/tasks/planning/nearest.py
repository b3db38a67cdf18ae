"""Which phrase a step that matches none was probably meant to be."""

from __future__ import annotations

import re

from rapidfuzz import fuzz, process

from taskyard.tasks.planning.phrases import PHRASES

__all__ = ["nearest_phrase"]

_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")


def nearest_phrase(text: str) -> str:
    """The example of the phrase whose words are most like those of `text`, quotes left out."""
    plain = {phrase.example: _unquoted(phrase.example) for phrase in PHRASES}
    best = process.extractOne(_unquoted(text), plain, scorer=fuzz.token_sort_ratio)
    return str(best[2])


def _unquoted(text: str) -> str:
    return _QUOTED.sub('""', text).lower()
