"""Lua scripts: read from their packages, and sent by hash, or whole to a server that lacks them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any, Self

import redis
from redis.exceptions import NoScriptError

__all__ = ["Argument", "Script", "call_replicated", "read_lua"]

Argument = str | bytes | int | float


def read_lua(package: str, name: str) -> str:
    """Return the source in the file `scripts/<name>.lua` of a package."""
    return resources.files(package).joinpath(f"scripts/{name}.lua").read_text("utf-8")


class Script:
    """One Lua script; a call takes one round trip, or two after the server's cache was flushed.

    `known` is whether a server has answered a call by hash; another server may not know the script.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.known = False
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    @classmethod
    def of(cls, package: str, name: str) -> Self:
        """Return the script that a package has in `scripts/<name>.lua`."""
        return cls(read_lua(package, name))

    def command(
        self, keys: Sequence[str], arguments: Sequence[Argument], *, known: bool = True
    ) -> tuple[Argument, ...]:
        """Return the words of a call: by hash, or with the source for a server without the script.

        A server that answers `NoScriptError` to a call by hash has done nothing, and stores the
        script with a call that has the source.
        """
        head = ("EVALSHA", self.sha) if known else ("EVAL", self.source)
        return (*head, len(keys), *keys, *arguments)

    def queue_load(self, pipeline: Any) -> None:
        """Append the source to a pipeline, so that later calls in it find the script."""
        pipeline.script_load(self.source)

    def queue(self, pipeline: Any, keys: Sequence[str], arguments: Sequence[Argument]) -> None:
        """Append the call to a pipeline, only by hash: call `queue_load` first."""
        pipeline.evalsha(self.sha, len(keys), *keys, *arguments)

    def __call__(
        self, client: redis.Redis, keys: Sequence[str], arguments: Sequence[Argument]
    ) -> Any:
        """Return the script's answer, in bytes; raises redis-py's errors."""
        # redis-py's own `evalsha` costs a twentieth of a job's time in wrappers of itself.
        execute: Any = client.execute_command
        try:
            return execute(*self.command(keys, arguments))
        except NoScriptError:
            return execute(*self.command(keys, arguments, known=False))


def call_replicated(
    client: redis.Redis,
    script: Script,
    keys: Sequence[str],
    arguments: Sequence[Argument],
    *,
    mark: str,
    replicas: int,
    within_s: float,
) -> tuple[Any, int]:
    """Return the script's answer, and how many replicas have all that was written before it.

    The server waits for `replicas` of them, at most `within_s`. The call, a write to the key `mark`
    and WAIT go in one trip on one connection: WAIT counts what its own connection wrote, and a
    repeated call may write nothing. Raises redis-py's errors.
    """
    # WAIT with 0 would wait for ever.
    wait = ("WAIT", replicas, max(1, int(within_s * 1000)))
    try:
        return _trip(client, script.command(keys, arguments), mark, wait)
    except NoScriptError:
        return _trip(client, script.command(keys, arguments, known=False), mark, wait)


def _trip(
    client: redis.Redis, call: Sequence[Argument], mark: str, wait: Sequence[Argument]
) -> tuple[Any, int]:
    with client.pipeline(transaction=False) as pipe:
        pipe.execute_command(*call)  # type: ignore[no-untyped-call]
        pipe.set(mark, 1)
        pipe.execute_command(*wait)  # type: ignore[no-untyped-call]
        answer, _, confirmed = pipe.execute()
    return answer, int(confirmed)
