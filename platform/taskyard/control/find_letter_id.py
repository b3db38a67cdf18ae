"""Find a dead letter by the first characters of its id."""

from __future__ import annotations

import re
import uuid
from typing import Final

from sqlalchemy import Connection, select

from taskyard.access import Identity
from taskyard.database.moved_rows import read_again
from taskyard.database.tables import LETTERS
from taskyard.database.visible_rows import seen_by
from taskyard.errors import NotFound, Refused

__all__ = ["MINIMUM_PREFIX", "find_id"]

MINIMUM_PREFIX: Final = 6
_HEX_LENGTH: Final = 32
_SHOWN: Final = 5


def find_id(connection: Connection, name: str | uuid.UUID, identity: Identity | None) -> uuid.UUID:
    """Return the one id that begins with `name`; raises `NotFound` or, for several, `Refused`.

    The first characters of an id are searched within the bounds of `identity`, so that no caller
    reads ids of letters outside of them. A whole id is returned wherever its letter is.
    """
    digits = str(name).strip().replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{6,32}", digits):
        raise NotFound(
            f"{str(name)[:60]!r} is not a dead letter's id: expected a UUID or at least "
            f"{MINIMUM_PREFIX} "
            "of its first characters. See: taskyard dlq list"
        )
    low, high = (uuid.UUID(digits.ljust(_HEX_LENGTH, fill)) for fill in "0f")
    query = select(LETTERS.c.id).where(LETTERS.c.id.between(low, high)).order_by(LETTERS.c.id)
    if low != high:
        query = seen_by(identity, query, queue=LETTERS.c.queue, domain=LETTERS.c.domain)
    found: list[uuid.UUID] = [row["id"] for row in read_again(connection, query.limit(_SHOWN + 1))]
    if not found:
        raise NotFound(f"there is no dead letter {str(name)!r}. See: taskyard dlq list")
    if len(found) > 1:
        some = ", ".join(str(found_id) for found_id in found[:_SHOWN])
        more = " and more" if len(found) > _SHOWN else ""
        raise Refused(f"{str(name)!r} is ambiguous: {some}{more}. Give more characters.")
    return found[0]
