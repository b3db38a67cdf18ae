"""The table of likenesses: what is compared, how, and how much it counts.

Weights that say how much a likeness counts were fitted by maximum likelihood on pairs of archived
pages of seventeen public sites, checked by leaving out one site at a time, and rounded. Those of
properties that such records lack (label, test id, placeholder, title, type, value) are judgement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, hypot, log
from typing import Final

from rapidfuzz.distance import Levenshtein

from taskyard.tasks.healing.fingerprint_parts import Rarity, Traits

__all__ = ["LIKENESSES", "Likeness", "Pool"]

_ALIKE_TAGS: Final = {"a": "act", "button": "act", "input": "act"} | {
    **dict.fromkeys(("h1", "h2", "h3", "h4"), "heading"),
    **dict.fromkeys(("span", "div", "p"), "text"),
}
_LONGEST_COMPARED: Final = 200
_FAR_PX: Final = 500.0
_FAR_DOWN_PX: Final = 300.0


@dataclass(frozen=True, slots=True)
class Pool:
    """The words of all elements of the new page, and how rare each word is."""

    words: Rarity
    neighbours: Rarity
    class_words: Rarity

    @classmethod
    def of(cls, candidates: list[Traits]) -> Pool:
        """Return the rarity of every word among the candidates."""
        return cls(
            Rarity(each.words for each in candidates),
            Rarity(each.neighbours for each in candidates),
            Rarity(each.class_words for each in candidates),
        )


@dataclass(frozen=True, slots=True)
class Likeness:
    """One row: `measure` gives 0 to 1, `applies` says whether the lost element has the property.

    `undrawn` is the weight where no browser drew the lost element: without boxes the markup has
    to carry the decision, and what stands around an element the most of it.
    """

    name: str
    weight: float
    undrawn: float
    applies: Callable[[Traits], bool]
    measure: Callable[[Traits, Traits, Pool], float]


def _always(_: Traits) -> bool:
    return True


def _ratio(ours: str, theirs: str) -> float:
    return Levenshtein.normalized_similarity(ours[:_LONGEST_COMPARED], theirs[:_LONGEST_COMPARED])


def _quotient(ours: float, theirs: float) -> float:
    return min(ours, theirs) / max(ours, theirs, 1.0)


def _same(name: str, weight: float, undrawn: float) -> Likeness:
    def measure(ours: Traits, theirs: Traits, _: Pool) -> float:
        return float(getattr(ours.seen, name) == getattr(theirs.seen, name))

    return Likeness(name, weight, undrawn, lambda ours: bool(getattr(ours.seen, name)), measure)


def _similar(name: str, weight: float, undrawn: float) -> Likeness:
    def measure(ours: Traits, theirs: Traits, _: Pool) -> float:
        return _ratio(getattr(ours.seen, name).lower(), getattr(theirs.seen, name).lower())

    return Likeness(name, weight, undrawn, lambda ours: bool(getattr(ours.seen, name)), measure)


def _drawn(name: str, weight: float, measure: Callable[[Traits, Traits], float]) -> Likeness:
    """Return a measure of boxes; without boxes on the new page it counts for no candidate."""

    def guarded(ours: Traits, theirs: Traits, _: Pool) -> float:
        return measure(ours, theirs) if theirs.seen.box is not None else 0.0

    return Likeness(name, weight, 0.0, lambda ours: ours.seen.box is not None, guarded)


def _kind(ours: Traits, theirs: Traits, _: Pool) -> float:
    tags = (ours.seen.tag.lower(), theirs.seen.tag.lower())
    left, right = (_ALIKE_TAGS.get(tag, tag) for tag in tags)
    return float(left == right)


def _length(ours: Traits, theirs: Traits, _: Pool) -> float:
    return 1 / (1 + abs(log((len(ours.text) + 3) / (len(theirs.text) + 3))))


def _near(ours: Traits, theirs: Traits) -> float:
    a, b = ours.seen.box, theirs.seen.box
    return 0.0 if a is None or b is None else exp(-hypot(a.x - b.x, a.y - b.y) / _FAR_PX)


def _level(ours: Traits, theirs: Traits) -> float:
    a, b = ours.seen.box, theirs.seen.box
    return 0.0 if a is None or b is None else exp(-abs(a.y - b.y) / _FAR_DOWN_PX)


def _proportion(ours: Traits, theirs: Traits) -> float:
    a, b = ours.seen.box, theirs.seen.box
    if a is None or b is None:
        return 0.0
    return _quotient(100 * a.width / max(a.height, 1), 100 * b.width / max(b.height, 1))


def _width(ours: Traits, theirs: Traits) -> float:
    a, b = ours.seen.box, theirs.seen.box
    return 0.0 if a is None or b is None else _quotient(a.width, b.width)


LIKENESSES: Final = (
    Likeness("tag", 0.5, 1.2, _always, lambda a, b, _: float(a.seen.tag == b.seen.tag)),
    Likeness("kind", 1.5, 1.2, _always, _kind),
    _same("test_id", 3.0, 3.0),
    _similar("id", 1.7, 3.0),
    _same("name", 1.8, 1.8),
    _same("type", 1.0, 1.0),
    _same("role", 1.0, 1.0),
    _similar("title", 1.0, 1.0),
    _similar("alt", 1.0, 1.0),
    _similar("placeholder", 1.5, 1.5),
    _same("value", 0.5, 0.5),
    Likeness(
        "class",
        1.3,
        2.0,
        lambda ours: bool(ours.class_words),
        lambda a, b, pool: pool.class_words.overlap(a.class_words, b.class_words),
    ),
    Likeness(
        "href",
        1.4,
        1.8,
        lambda ours: bool(ours.address),
        lambda a, b, _: _ratio(a.address, b.address),
    ),
    Likeness(
        "path",
        1.4,
        1.7,
        lambda ours: bool(ours.address),
        lambda a, b, _: float(a.address_path == b.address_path),
    ),
    Likeness(
        "label", 2.0, 2.0, lambda ours: bool(ours.label), lambda a, b, _: _ratio(a.label, b.label)
    ),
    Likeness(
        "same text", 2.5, 2.0, lambda ours: bool(ours.text), lambda a, b, _: float(a.text == b.text)
    ),
    Likeness(
        "text", 1.8, 2.2, lambda ours: bool(ours.text), lambda a, b, _: _ratio(a.text, b.text)
    ),
    Likeness(
        "words",
        2.0,
        2.0,
        lambda ours: bool(ours.words),
        lambda a, b, pool: pool.words.overlap(a.words, b.words),
    ),
    Likeness("text length", 1.1, 2.2, _always, _length),
    Likeness(
        "neighbours",
        1.5,
        4.0,
        lambda ours: bool(ours.neighbours),
        lambda a, b, pool: pool.neighbours.overlap(a.neighbours, b.neighbours),
    ),
    Likeness(
        "end of path",
        2.1,
        2.0,
        lambda ours: bool(ours.steps),
        lambda a, b, _: Levenshtein.normalized_similarity(a.steps[-3:], b.steps[-3:]),
    ),
    Likeness(
        "tags of path",
        0.7,
        1.9,
        lambda ours: bool(ours.tags),
        lambda a, b, _: Levenshtein.normalized_similarity(a.tags, b.tags),
    ),
    _drawn("place", 2.5, _near),
    _drawn("height on page", 2.5, _level),
    _drawn("proportion", 1.8, _proportion),
    _drawn("width", 1.7, _width),
)
