"""A script's call that counts only when enough replicas have what it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import NoScriptError

from taskyard.store.scripts import Argument, Script

__all__ = ["call_replicated"]


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
    """(the script's answer, how many replicas have all that was written up to it).

    The server waits for `replicas` of them, at most `within_s`. Call, a write to the key `mark` and
    WAIT go in one trip on one connection: WAIT counts what its own connection wrote, and a repeated
    call may write nothing. Raises redis-py's errors.
    """
    # WAIT with 0 would wait for ever.
    wait = ("WAIT", replicas, max(1, int(within_s * 1000)))
    try:
        return _trip(client, script, keys, arguments, mark, wait, load=False)
    except NoScriptError:
        return _trip(client, script, keys, arguments, mark, wait, load=True)


def _trip(
    client: redis.Redis,
    script: Script,
    keys: Sequence[str],
    arguments: Sequence[Argument],
    mark: str,
    wait: tuple[str, int, int],
    *,
    load: bool,
) -> tuple[Any, int]:
    with client.pipeline(transaction=False) as pipe:
        if load:
            script.queue_load(pipe)
        script.queue(pipe, keys, arguments)
        pipe.set(mark, 1)
        pipe.execute_command(*wait)  # type: ignore[no-untyped-call]
        *_, answer, _, confirmed = pipe.execute()
    return answer, int(confirmed)
