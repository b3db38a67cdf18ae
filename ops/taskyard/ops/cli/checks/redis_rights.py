"""Check whether the user of a Redis or Valkey may do what Taskyard needs.

Nothing is executed: Redis checks each command when it is queued in a transaction, and the
transaction is then discarded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.exceptions import NoPermissionError, ResponseError

from taskyard.ops.cli.checks.finding import Finding
from taskyard.ops.cli.checks.required_redis_commands import Need

__all__ = ["Lacking", "lacking", "look_at_rights"]


@dataclass(slots=True)
class Lacking:
    """Missing rights: `commands` to run, `keys` to touch, `channels` to use; each pattern once."""

    commands: dict[str, None] = field(default_factory=dict)
    keys: dict[str, None] = field(default_factory=dict)
    channels: dict[str, None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Return whether any right is missing."""
        return bool(self.commands or self.keys or self.channels)

    def note(self, need: Need, error: NoPermissionError) -> None:
        """Add a refused command, key or channel; the server's text shows which it is."""
        said = str(error)
        if "command" in said:
            self.commands[need.command] = None
        elif "channel" in said:
            self.channels[need.names] = None
        else:
            self.keys[need.names] = None

    def __str__(self) -> str:
        """Return text for a sentence: "may not run x, y; touch the keys z"."""
        parts = [
            ("run", self.commands),
            ("touch the keys", self.keys),
            ("use the channels", self.channels),
        ]
        return "; ".join(f"{verb} {', '.join(names)}" for verb, names in parts if names)

    def words(self) -> str:
        """Return the rules that give all rights, for ACL SETUSER after the user's name."""
        words = [f"+{name}" for name in self.commands]
        words += [f"~{name}" for name in self.keys] + [f"&{name}" for name in self.channels]
        return " ".join(words)


def look_at_rights(subject: str, client: redis.Redis, needs: Iterable[Need]) -> Iterator[Finding]:
    """Return one finding: the user may do all of `needs`, or a list of the missing rights."""
    found, user = lacking(client, needs), _user(client)
    if not found:
        yield Finding.ok(subject, f"user {user} may do what Taskyard needs")
        return
    yield Finding.error(
        subject,
        f"user {user} may not {found}",
        f"Run: ACL SETUSER {user} {found.words()}, then ACL SAVE or the same in the server's "
        "configuration; docs/access.md lists all that is needed.",
        exit_code=4,
    )


def lacking(client: redis.Redis, needs: Iterable[Need]) -> Lacking:
    """Return the rights that the client's user lacks.

    Raises redis-py's errors if the connection is lost.
    """
    found = Lacking()
    # redis-py does not type what a connection does.
    pool: Any = client.connection_pool
    connection = pool.get_connection()
    try:
        if not _permits(connection, Need(("multi",)), found):
            return found
        for need in needs:
            _permits(connection, need, found)
        _permits(connection, Need(("discard",)), found)
    finally:
        # The connection may be in the middle of a transaction.
        connection.disconnect()
        pool.release(connection)
    return found


def _permits(connection: Any, need: Need, found: Lacking) -> bool:
    connection.send_command(*need.words)
    try:
        connection.read_response()
    except NoPermissionError as error:
        found.note(need, error)
        return False
    except ResponseError:
        # Full memory, or a replica: other findings report them. They say nothing about permissions.
        return True
    return True


def _user(client: redis.Redis) -> str:
    try:
        name: Any = client.acl_whoami()
    except ResponseError:
        return str(client.get_connection_kwargs().get("username") or "default")
    return name.decode() if isinstance(name, bytes) else str(name)
