"""Count operator messages that died before their handler looked at a credential.

A handler counts its own denials. A message that cannot be decoded, or whose arguments no task
takes, never reaches a handler: its dead letter is the only sign of the attempt.

Alone because storing letters knows nothing of operators.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, select

from taskyard import audit
from taskyard.database.tables import LETTERS
from taskyard.mirror.read_delivery import Readable
from taskyard.wire.letter_categories import Category

__all__ = ["count_unread", "new_unread"]

# The tasks of this name carry out verbs; also one that no worker knows.
_PREFIX: Final = "taskyard.ops."
_UNREAD: Final = frozenset(
    {Category.UNDECODABLE, Category.VALIDATION_ERROR, Category.REJECTED, Category.UNKNOWN_TASK}
)


def new_unread(connection: Connection, letters: Iterable[Readable]) -> list[Readable]:
    """Return the letters of such messages that have no row yet."""
    found = [item for item in letters if _is_unread(item)]
    if not found:
        return []
    query = select(LETTERS.c.id).where(LETTERS.c.id.in_([item.id for item in found]))
    known = set(connection.scalars(query))
    return [item for item in found if item.id not in known]


def count_unread(connection: Connection, letters: Iterable[Readable]) -> None:
    """Count each letter as one denial, in the transaction that stores the letter."""
    counts = Counter(
        (
            item.letter.job_type,
            item.letter.category,
            item.decided_at.replace(second=0, microsecond=0),
        )
        for item in letters
    )
    for (task, category, minute), count in sorted(counts.items()):
        audit.count_unverified(connection, task, category, minute, count)


def _is_unread(item: Readable) -> bool:
    letter = item.letter
    return letter.job_type.startswith(_PREFIX) and letter.category in _UNREAD
