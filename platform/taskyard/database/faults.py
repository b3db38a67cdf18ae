"""What a failure of Postgres means: away, the wrong schema, or data that it refuses.

The classes are those of https://www.postgresql.org/docs/current/errcodes-appendix.html.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = [
    "first_line",
    "is_absent",
    "is_away",
    "is_out_of_time",
    "is_refused_data",
    "is_wrong_schema",
]

# Connection, resources (disk, memory, connections), operator intervention (shutdown), a standby.
_AWAY: Final = ("08", "53", "57P", "25006")
_ABSENT: Final = re.compile(r'FATAL:  ?database ".*" does not exist')
_WRONG_SCHEMA: Final = ("42P01", "42703", "42883")
_CANCELLED: Final = "57014"
# Data, constraint, program limit (an index row too long), internal (a value over 1 GB).
_REFUSED: Final = ("22", "23", "54", "XX")


def is_absent(error: BaseException | None) -> bool:
    """Whether the server has no database of that name; before a connection there are only words."""
    return _code(error) is None and _ABSENT.search(str(error)) is not None


def is_away(error: BaseException | None) -> bool:
    """Whether the server could not be reached or could not serve anybody."""
    code = _code(error)
    if code is None:
        return type(error).__name__ in {"OperationalError", "InterfaceError"}
    return code.startswith(_AWAY)


def is_wrong_schema(error: BaseException | None) -> bool:
    """Whether a table, column or function is missing."""
    code = _code(error)
    return code is not None and code.startswith(_WRONG_SCHEMA)


def is_out_of_time(error: BaseException | None) -> bool:
    """Whether a statement was cancelled, as `statement_timeout` does."""
    return _code(error) == _CANCELLED


def is_refused_data(error: BaseException) -> bool:
    """Whether these values themselves can never be stored, however often they are sent."""
    if isinstance(error, ValueError | OverflowError):
        return True  # the driver refuses NUL and lone surrogates before the server sees them
    code = _code(getattr(error, "orig", None))
    return code is not None and code.startswith(_REFUSED)


def first_line(error: BaseException | None) -> str:
    """The first line of the driver's text, which may go on for a page."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _code(error: BaseException | None) -> str | None:
    code = getattr(error, "pgcode", None)
    return code if isinstance(code, str) else None
