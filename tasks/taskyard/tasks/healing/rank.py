"""Order candidates by similarity, with the confidence that each is the lost element.

Confidence is the candidate's share of a softmax over all candidates and one more possibility: the
element was removed. This possibility is as likely as a candidate of medium similarity. So the
confidence is high only if the best candidate is similar to the lost element, and the second
candidate is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import exp
from typing import Final

from taskyard.tasks.healing.fingerprint_parts import Traits
from taskyard.tasks.healing.similarity_weights import LIKENESSES, Likeness, Pool
from taskyard.tasks.models.fingerprint import Fingerprint

__all__ = ["Ranked", "rank"]

_GONE: Final = 0.5
"""The similarity of the possibility that no candidate is the lost element."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate by its index, with `similarity` and `confidence` from 0 to 1."""

    index: int
    similarity: float
    confidence: float


def rank(
    lost: Fingerprint,
    candidates: Sequence[Fingerprint],
    before_each: Callable[[], None] = lambda: None,
) -> list[Ranked]:
    """Return all candidates, best first; `before_each` ends the work by raising."""
    ours = Traits.of(lost)
    theirs = [Traits.of(candidate) for candidate in candidates]
    pool = Pool.of(theirs)
    applying = [(each, _weight(each, ours)) for each in LIKENESSES if each.applies(ours)]
    most = sum(weight for _, weight in applying)
    scores = []
    for candidate in theirs:
        before_each()
        scores.append(
            sum(weight * each.measure(ours, candidate, pool) for each, weight in applying)
        )
    shares = _shares(scores, most * _GONE)
    ranked = [
        Ranked(index, score / most, share)
        for index, (score, share) in enumerate(zip(scores, shares, strict=True))
    ]
    return sorted(ranked, key=lambda each: -each.similarity)


def _weight(likeness: Likeness, lost: Traits) -> float:
    return likeness.weight if lost.seen.box is not None else likeness.undrawn


def _shares(scores: Sequence[float], gone: float) -> Iterable[float]:
    top = max([gone, *scores])
    powers = [exp(score - top) for score in scores]
    whole = sum(powers) + exp(gone - top)
    return [power / whole for power in powers]
