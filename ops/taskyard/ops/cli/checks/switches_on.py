"""Check the pauses and kill switches in Redis: which are on, and which cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from taskyard.ops.cli.checks.finding import Finding
from taskyard.ops.cli.switches.run_turn import opened_switches
from taskyard.settings import Settings
from taskyard.store import named
from taskyard.switches import RedisSwitches, SwitchesRead

__all__ = ["look_at"]

_SUBJECT: Final = "switches"
# A line of a terminal has room for a few names.
_NAMED: Final = 5


def look_at(settings: Settings) -> Iterator[Finding]:
    """Yield one finding for all that are on, and one for all that cannot be read.

    A Redis that does not answer is reported by its own finding.
    """
    if settings.redis_url is None:
        return
    with opened_switches(settings) as switches:
        try:
            read = _read(switches)
        except (RedisConnectionError, RedisTimeoutError):
            return
        if read.unreadable:
            yield _unreadable(read, switches.key)
        on = [field for field, state in read.states.items() if state.in_force(read.now_us)]
        if on:
            texts = [f"{field} ({read.states[field].mode})" for field in on]
            yield Finding.warning(
                _SUBJECT,
                f"{_listed(texts)} {'is' if len(on) == 1 else 'are'} on",
                "Who, why and until when: taskyard switches list",
            )
        elif not read.unreadable:
            yield Finding.ok(_SUBJECT, "no pause and no kill switch is on")


def _read(switches: RedisSwitches) -> SwitchesRead:
    try:
        return switches.read()
    except ResponseError as error:
        raise named(switches.client, error, {switches.key: "hash"}) from None


def _unreadable(read: SwitchesRead, key: str) -> Finding:
    count = len(read.unreadable)
    entries = "1 entry" if count == 1 else f"{count} entries"
    names = _listed([repr(name[:60]) for name in read.unreadable])
    return Finding.error(
        _SUBJECT,
        f"{entries} of {key} cannot be read: {names}. A newer version or another program wrote "
        f"{'it' if count == 1 else 'them'}; a switch of which that is so counts as on",
        "Turn it off with taskyard kill off or taskyard queues resume, or delete it with HDEL",
        exit_code=5,
    )


def _listed(names: list[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
