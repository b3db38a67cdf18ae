"""Count operator messages that died before their handler looked at a credential.

A handler counts its own denials. A message that cannot be decoded, whose arguments no task takes,
or that has expired never reaches a handler: its dead letter is the only sign of the attempt.

Alone because storing letters knows nothing of operators.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, select

from taskyard import audit
from taskyard.database.tables import LETTERS, NONCES
from taskyard.mirror.read_delivery import Readable
from taskyard.wire.letter_categories import Category

__all__ = ["count_unread", "new_unread"]

# Tasks whose names begin so are operator tasks, also those that no worker knows.
_PREFIX: Final = "taskyard.ops."
_UNREAD: Final = frozenset(
    {Category.UNDECODABLE, Category.VALIDATION_ERROR, Category.REJECTED, Category.UNKNOWN_TASK}
)
# A message in one of these categories may have been accepted by a handler before: then its nonce is
# bound to the message.
_PERHAPS_UNREAD: Final = frozenset(
    {
        Category.EXPIRED,
        Category.POISON,
        Category.TIMEOUT,
        Category.UNKNOWN_HISTORY,
        Category.INTERNAL_ERROR,
    }
)


def new_unread(connection: Connection, letters: Iterable[Readable]) -> list[Readable]:
    """Return the letters of such messages that have no row yet."""
    found = [item for item in letters if _is_unread(item)]
    if not found:
        return []
    query = select(LETTERS.c.id).where(LETTERS.c.id.in_([item.id for item in found]))
    known = set(connection.scalars(query))
    new = [item for item in found if item.id not in known]
    accepted = _accepted(connection, new)
    return [item for item in new if item.letter.job_id not in accepted]


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


def _accepted(connection: Connection, letters: Iterable[Readable]) -> set[str]:
    """Return the jobs of those letters whose message a handler has accepted or counted."""
    jobs = [item.letter.job_id for item in letters if item.letter.category in _PERHAPS_UNREAD]
    if not jobs:
        return set()
    query = select(NONCES.c.message_id).where(NONCES.c.message_id.in_(jobs))
    return set(connection.scalars(query))


def _is_unread(item: Readable) -> bool:
    letter = item.letter
    unread = letter.category in _UNREAD | _PERHAPS_UNREAD
    return letter.job_type.startswith(_PREFIX) and unread
