"""Two stores are pairs of a hash and a sorted set; half a pair is drift.

Every candidate is judged again by the script that would mend it, so that a message on its way is
never taken for half a pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Final

import redis

from taskyard.broker import own_layout
from taskyard.reconcile.kinds import Kind
from taskyard.reconcile.report import Budget, Finding
from taskyard.settings import Settings
from taskyard.store import Script

__all__ = ["compare_pairs"]

_COUNT: Final = 500
_SECONDS, _MILLISECONDS = 1, 1000


@dataclass(frozen=True, slots=True)
class _Pair:
    """`scale`: units a second of the sorted set's times."""

    messages: str
    times: str
    scale: int
    without_message: Kind
    without_time: Kind


def compare_pairs(client: redis.Redis, settings: Settings, budget: Budget) -> Iterator[Finding]:
    """Halves in the delay store and among the unacknowledged messages."""
    for pair in _pairs(settings):
        messages = {
            member for member, _ in client.hscan_iter(pair.messages, count=_COUNT) if budget.ask()
        }
        times = {member for member, _ in client.zscan_iter(pair.times, count=_COUNT)}
        if not budget.ask():
            return
        yield from _halves(client, pair, "message", times - messages, pair.without_message)
        yield from _halves(client, pair, "time", messages - times, pair.without_time)


def _halves(
    client: redis.Redis, pair: _Pair, lacks: str, members: set[bytes], kind: Kind
) -> Iterator[Finding]:
    script, keys = _SCRIPT, [pair.messages, pair.times]

    def mend(member: bytes) -> bool:
        return bool(script(client, keys, [lacks, "mend", pair.scale, member]))

    for member in sorted(members):
        if script(client, keys, [lacks, "look", pair.scale, member]):
            text = member.decode("utf-8", "replace")
            yield Finding(kind, text, lambda member=member: mend(member))  # type: ignore[misc]


def _pairs(settings: Settings) -> tuple[_Pair, _Pair]:
    layout = own_layout(settings)
    return (
        _Pair(
            f"{settings.namespace}:delayed:messages",
            f"{settings.namespace}:delayed",
            _MILLISECONDS,
            Kind.DELAYED_WITHOUT_MESSAGE,
            Kind.DELAYED_WITHOUT_TIME,
        ),
        _Pair(
            layout.unacked_key,
            layout.index_key,
            _SECONDS,
            Kind.UNACKED_WITHOUT_MESSAGE,
            Kind.UNACKED_WITHOUT_TIME,
        ),
    )


_SCRIPT = Script(
    resources.files("taskyard.reconcile").joinpath("scripts/half.lua").read_text("utf-8")
)
