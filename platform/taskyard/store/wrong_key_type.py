"""Errors that name a Taskyard key of a wrong type, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.exceptions import ReadOnlyError, RedisError, ResponseError

__all__ = ["WrongKeyType", "is_misplaced", "is_of_replica", "named"]


class WrongKeyType(ResponseError):
    """A key has another type than expected, so Redis refused a command; nothing was changed.

    This is a redis-py error: code that can continue without Redis can also continue without the
    key.
    """

    def __init__(self, key: str, expected: str, found: str) -> None:
        self.key, self.expected, self.found = key, expected, found
        super().__init__(
            f"expected the key {key!r} to be a {expected}, got a {found}. Nothing is lost "
            f"meanwhile; move the key with RENAME {key} {key}.kept, or delete it with DEL if "
            "it is not needed"
        )


def is_misplaced(error: BaseException) -> bool:
    """Return whether a command was refused because of a key's type."""
    # From a script, older servers write the word after "Error running script".
    refused = isinstance(error, ResponseError) and "WRONGTYPE" in str(error)
    return refused or isinstance(error, WrongKeyType)


def is_of_replica(error: BaseException) -> bool:
    """Return whether a replica refused a command; then the client must find the primary again."""
    # From a script, older servers write the word after "Error running script".
    return (
        isinstance(error, ReadOnlyError)
        or str(error).startswith("MASTERDOWN")
        or (isinstance(error, ResponseError) and "READONLY" in str(error))
    )


def named(client: Any, error: ResponseError, expected: Mapping[str, str]) -> ResponseError:
    """Return the `WrongKeyType` that explains why Redis refused a command with `error`.

    `expected` maps each key of the command to the type that it should have. The error names the
    first key that has another type. Returns `error` itself if it has another cause, if no key has a
    wrong type now, or if Redis cannot be asked.
    """
    if isinstance(error, WrongKeyType) or not is_misplaced(error):
        return error
    for key, kind in expected.items():
        try:
            found = client.type(key)
        except RedisError:
            return error
        name = found.decode() if isinstance(found, bytes) else str(found)
        if name not in (kind, "none"):
            return WrongKeyType(key, kind, name)
    return error
