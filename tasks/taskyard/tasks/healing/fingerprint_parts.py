"""A fingerprint in parts, so that it can be compared quickly with hundreds of others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log
from typing import Final

from taskyard.tasks.models.fingerprint import Fingerprint

__all__ = ["Rarity", "Traits"]

_WORD: Final = re.compile(r"\w+")
_CAMEL: Final = re.compile(r"([a-z])([A-Z])")
_INDEX: Final = re.compile(r"\[\d+\]$")
_ARCHIVE: Final = re.compile(r"^https?://web\.archive\.org/web/[^/]*/")
_SCHEME: Final = re.compile(r"^(?:https?:)?//(?:www\.)?", re.IGNORECASE)


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


@dataclass(frozen=True, slots=True)
class Traits:
    """A fingerprint's words, path steps and address parts."""

    seen: Fingerprint
    words: tuple[str, ...]
    text: str
    label: str
    neighbours: tuple[str, ...]
    class_words: tuple[str, ...]
    address: str
    address_path: str
    steps: tuple[str, ...]
    tags: tuple[str, ...]

    @classmethod
    def of(cls, seen: Fingerprint) -> Traits:
        """Return the parts of `seen`."""
        words = _words(seen.text)
        steps = tuple(step for step in seen.xpath.lower().split("/") if step)
        address = _SCHEME.sub("", _ARCHIVE.sub("", seen.href)).rstrip("/")
        spaced = _CAMEL.sub(r"\1 \2", " ".join(seen.classes))
        return cls(
            seen=seen,
            words=tuple(words),
            text=" ".join(words),
            label=" ".join(_words(seen.label)),
            neighbours=tuple(_words(seen.neighbour_text)),
            class_words=tuple(_words(spaced.replace("_", " "))),
            address=address,
            address_path=address.partition("/")[2],
            steps=steps,
            tags=tuple(_INDEX.sub("", step) for step in steps),
        )


class Rarity:
    """How much a shared word counts: the fewer elements have the word, the more it counts."""

    def __init__(self, lists: Iterable[Sequence[str]]) -> None:
        counts: Counter[str] = Counter()
        total = 0
        for words in lists:
            total += 1
            counts.update(set(words))
        self._weights = {word: log(1 + total / count) for word, count in counts.items()}
        self._unseen = log(1 + total)

    def overlap(self, ours: Sequence[str], theirs: Sequence[str]) -> float:
        """Return the weight of shared words as a part of all: 0 none shared, 1 all shared."""
        left, right = Counter(ours), Counter(theirs)
        whole = self._weigh(left | right)
        return self._weigh(left & right) / whole if whole else 1.0

    def _weigh(self, words: Counter[str]) -> float:
        known = self._weights
        return sum(count * known.get(word, self._unseen) for word, count in words.items())
