"""The meaning of each Postgres error.

One table by SQLSTATE, and patterns for errors without a code.

The codes are those of https://www.postgresql.org/docs/current/errcodes-appendix.html.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy.exc import StatementError

__all__ = [
    "MEANINGS",
    "REFUSALS",
    "Refusal",
    "cause_of",
    "first_line",
    "is_missing_database",
    "is_moved_partition",
    "is_out_of_time",
    "is_refused_login",
    "is_refused_parameter",
    "is_refused_right",
    "is_wrong_option",
    "meaning",
    "reasons",
    "refusal_of_values",
]


class Refusal(StrEnum):
    """What a caller can do after Postgres has refused a statement."""

    UNREACHABLE = "unreachable"
    """The connection is lost, or the server starts or stops: try the same again later."""
    PASSING = "passing"
    """Locks, conflicts, no space or a read-only server: try the same again later."""
    SCHEMA = "schema"
    """A table, column, function or schema is missing: an operator must migrate."""
    DATA = "data"
    """These values can never be stored; sending them again does not help."""
    UNCLEAR = "unclear"
    """The code does not show whether the error lasts; only further attempts show it."""


# The longest matching prefix counts; a code that is not listed is unclear.
MEANINGS: Final[Mapping[str, Refusal]] = MappingProxyType(
    {
        "08": Refusal.UNREACHABLE,  # connection
        "21": Refusal.DATA,  # one statement touches a row twice; halved, none does
        "22": Refusal.DATA,
        "23": Refusal.DATA,  # a constraint; 23514 without its name is a partition's
        "25006": Refusal.PASSING,  # a standby, or default_transaction_read_only
        "25P03": Refusal.UNREACHABLE,  # idle_in_transaction_session_timeout ends the connection
        "25P04": Refusal.UNREACHABLE,  # transaction_timeout ends it too
        "28": Refusal.PASSING,  # login; an operator mends it
        "3D": Refusal.SCHEMA,
        "3F": Refusal.SCHEMA,
        "40": Refusal.PASSING,  # serialization, deadlock
        "42501": Refusal.PASSING,  # a right; an operator grants it
        "42703": Refusal.SCHEMA,
        "42883": Refusal.SCHEMA,
        "42P01": Refusal.SCHEMA,
        "53": Refusal.PASSING,  # disk, memory, connections
        "54": Refusal.DATA,  # program limit: an index row or a value is too long
        "55": Refusal.PASSING,  # a lock that is not free, an object in use
        "57": Refusal.UNREACHABLE,  # shutdown, crash, start
        "57014": Refusal.PASSING,  # statement_timeout, or somebody cancelled it
        "58": Refusal.PASSING,  # input and output
        "72": Refusal.PASSING,  # snapshot too old
        "P0": Refusal.DATA,  # a trigger of the database's owner refuses the row
        "XX": Refusal.UNCLEAR,  # internal: a partition that was just dropped, a damaged file
    }
)
# Errors that storing values may raise: the server's, and the driver's before it sends them.
REFUSALS: Final = (StatementError, ValueError, OverflowError, RecursionError)
_CANCELLED: Final = "57014"
_CHECK: Final = "23514"
_NO_FEATURE: Final = "0A000"
_RIGHT: Final = "42501"
_TOO_LARGE: Final = (
    "invalid memory alloc request size"  # an internal error; its text is never translated
)
# Before there is a connection the driver knows no code, only text.
_MISSING_DATABASE: Final = re.compile(r'FATAL:  ?database ".*" does not exist')
_LOGIN: Final = "FATAL:"
_PARAMETER: Final = re.compile(
    r"unsupported startup parameter|unrecognized configuration parameter|invalid command-line arg"
    r"|invalid value for parameter|permission denied to set parameter|parameter \".*\" cannot be"
    r"|requires a value"
)
_OPTION: Final = re.compile(
    r"invalid (\w+ )?value|invalid connection option|invalid .* for connection option"
    r"|definition of service|service file"
)
_ATTEMPT: Final = re.compile(r"^(?!\s)(.+)$", re.MULTILINE)


def meaning(error: BaseException | None) -> Refusal | None:
    """Return the meaning of the driver's `error`; None if the driver did not raise it."""
    code = _code(error)
    if code is None:
        lost = type(error).__name__ in {"OperationalError", "InterfaceError"}
        return Refusal.UNREACHABLE if lost else None
    if is_moved_partition(error):
        return Refusal.PASSING
    if _is_unconvertible(error):
        return Refusal.DATA
    if code.startswith("XX") and _TOO_LARGE in str(error):
        return Refusal.DATA
    prefixes = (code[:length] for length in range(len(code), 1, -1))
    return next((MEANINGS[prefix] for prefix in prefixes if prefix in MEANINGS), Refusal.UNCLEAR)


def cause_of(error: BaseException) -> BaseException:
    """Return the error of the driver or of Python inside SQLAlchemy's wrapper."""
    wrapped: BaseException | None = getattr(error, "orig", None)
    return error if wrapped is None else wrapped


def refusal_of_values(error: BaseException) -> Refusal | None:
    """Return the `meaning` of an error from storing values, also inside SQLAlchemy's wrapper."""
    cause = cause_of(error)
    # The driver refuses NUL and lone surrogates before it sends them, and json refuses values that
    # are nested too deeply.
    if isinstance(cause, ValueError | OverflowError | RecursionError):
        return Refusal.DATA
    return meaning(cause)


def is_missing_database(error: BaseException | None) -> bool:
    """Return whether the server has no database of that name."""
    return _code(error) is None and _MISSING_DATABASE.search(str(error)) is not None


def is_refused_login(error: BaseException | None) -> bool:
    """Return whether a server answers and refuses the login."""
    return _code(error) is None and _LOGIN in str(error)


def is_refused_parameter(error: BaseException | None) -> bool:
    """Return whether the server, or a pooler, refuses a parameter of the connection."""
    return is_refused_login(error) and _PARAMETER.search(str(error)) is not None


def is_wrong_option(error: BaseException | None) -> bool:
    """Return whether the driver's library cannot use an option, so that no server was contacted."""
    text = str(error)
    return _code(error) is None and _LOGIN not in text and _OPTION.search(text) is not None


def is_moved_partition(error: BaseException | None) -> bool:
    """Return whether the row's week was attached or detached since the statement was planned."""
    return _code(error) == _CHECK and _constraint(error) is None


def _is_unconvertible(error: BaseException | None) -> bool:
    """Return whether the database's encoding has no way from Unicode at all, as SQL_ASCII has none.

    Newer servers say 22P05. Before, the code is that of every missing feature, but the place in the
    server's source is never translated.
    """
    diagnosis: Any = getattr(error, "diag", None)
    place = getattr(diagnosis, "source_function", None)
    return _code(error) == _NO_FEATURE and place == "pg_unicode_to_server"


def is_out_of_time(error: BaseException | None) -> bool:
    """Return whether a statement was cancelled, as `statement_timeout` does."""
    return _code(error) == _CANCELLED


def is_refused_right(error: BaseException | None) -> bool:
    """Return whether the role lacks a right, or a trigger says so."""
    return _code(error) == _RIGHT


def first_line(error: BaseException | None) -> str:
    """Return the first line of the driver's text, which can be a page long."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def reasons(error: BaseException | None) -> str:
    """Return why each host refused or could not be reached, without the driver's advice."""
    return "; ".join(_ATTEMPT.findall(str(error).strip())) or type(error).__name__


def _code(error: BaseException | None) -> str | None:
    code = getattr(error, "pgcode", None)
    return code if isinstance(code, str) else None


def _constraint(error: BaseException | None) -> str | None:
    diagnosis: Any = getattr(error, "diag", None)
    return getattr(diagnosis, "constraint_name", None)
