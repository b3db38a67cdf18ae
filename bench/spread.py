"""What the turns of one comparison say together: the median, and how far they lay apart."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Spread", "ratios", "spread"]


@dataclass(frozen=True)
class Spread:
    """The ratios of all turns; `median` is the figure, the rest says what it is worth."""

    median: float
    lowest: float
    lower_quartile: float
    upper_quartile: float
    highest: float
    turns: int


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours by theirs, turn by turn; raises ValueError where a turn has no partner."""
    if len(ours) != len(theirs):
        raise ValueError(
            f"every turn needs a partner, got {len(ours)} of ours and {len(theirs)} of theirs"
        )
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def spread(values: Sequence[float]) -> Spread:
    """The spread of at least one value, to three decimals; quartiles include both ends."""
    if not values:
        raise ValueError("a spread needs at least one turn, got none")
    ends = values if len(values) > 1 else [*values, *values]
    lower, _, upper = statistics.quantiles(ends, n=4, method="inclusive")
    return Spread(
        median=round(statistics.median(values), 3),
        lowest=round(min(values), 3),
        lower_quartile=round(lower, 3),
        upper_quartile=round(upper, 3),
        highest=round(max(values), 3),
        turns=len(values),
    )
