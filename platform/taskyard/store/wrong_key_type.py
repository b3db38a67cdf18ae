"""Keys of ours that hold another type than ours: named, with what to do about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.exceptions import ReadOnlyError, RedisError, ResponseError

__all__ = ["WrongKeyType", "is_misplaced", "is_of_replica", "named"]


class WrongKeyType(ResponseError):
    """A key holds another type than ours, so that a command was refused; nothing was changed.

    An error of redis-py's family, since whoever can go on without Redis can go on without the key.
    """

    def __init__(self, key: str, expected: str, found: str) -> None:
        self.key, self.expected, self.found = key, expected, found
        super().__init__(
            f"the key {key!r} holds something else: a {found}, expected a {expected}. "
            f"Nothing is lost while it waits; move it away with RENAME {key} {key}.kept, "
            "or DEL it if nobody needs it"
        )


def is_misplaced(error: BaseException) -> bool:
    """Whether a command was refused for the type of a key."""
    # From a script the word stands behind "Error running script" on older servers.
    refused = isinstance(error, ResponseError) and "WRONGTYPE" in str(error)
    return refused or isinstance(error, WrongKeyType)


def is_of_replica(error: BaseException) -> bool:
    """Whether a replica refused what only its primary may do: the primary has to be found."""
    # From a script the word stands behind "Error running script" on older servers.
    return (
        isinstance(error, ReadOnlyError)
        or str(error).startswith("MASTERDOWN")
        or (isinstance(error, ResponseError) and "READONLY" in str(error))
    )


def named(client: Any, error: ResponseError, expected: Mapping[str, str]) -> ResponseError:
    """`WrongKeyType` for the first of the `expected` (key -> type) that is of another type.

    `error` itself where none is (any more) or Redis cannot be asked: it names no key.
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
