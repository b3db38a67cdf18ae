"""Find a lost element on a changed page, or report that no candidate is certain enough.

The idea, weighing many small likenesses of an element with every element of the new page, is that
of Similo: M. Nass, E. Alegroth, R. Feldt, M. Leotta, F. Ricca, "Similarity-based Web Element
Localization for Robust Test Automation", ACM TOSEM 32(3), 2023. Properties, weights, the rarity of
words and the confidence are this package's own.
"""

from taskyard.tasks.healing.heal import heal
from taskyard.tasks.healing.rank import Ranked, rank

__all__ = ["Ranked", "heal", "rank"]
