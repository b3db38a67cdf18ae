"""Entries of two stores whose other half is missing.

Two stores consist of a hash of messages and a sorted set of times: the delay store, and the
unacknowledged messages. An entry in only one of the two parts is an inconsistency. The script that
repairs an entry checks it again, so a message that is just being moved is never reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import redis

from taskyard.broker import own_layout
from taskyard.inspection.search_budget import Budget
from taskyard.reconcile.inconsistency_kinds import Kind
from taskyard.reconcile.report import Finding
from taskyard.settings import Settings
from taskyard.store import Script

__all__ = ["find_half_entries"]

_COUNT: Final = 500
_SECONDS, _MILLISECONDS = 1, 1000


@dataclass(frozen=True, slots=True)
class _Store:
    """A store of messages; `scale` is units per second of the sorted set's times."""

    messages: str
    times: str
    scale: int
    without_message: Kind
    without_time: Kind


def find_half_entries(client: redis.Redis, settings: Settings, budget: Budget) -> Iterator[Finding]:
    """Yield a finding for each half in the delay store and among the unacknowledged messages."""
    for store in _stores(settings):
        messages = {
            member for member, _ in client.hscan_iter(store.messages, count=_COUNT) if budget.ask()
        }
        times = {member for member, _ in client.zscan_iter(store.times, count=_COUNT)}
        if not budget.ask():
            return
        yield from _halves(client, store, "message", times - messages, store.without_message)
        yield from _halves(client, store, "time", messages - times, store.without_time)


def _halves(
    client: redis.Redis, store: _Store, lacks: str, members: set[bytes], kind: Kind
) -> Iterator[Finding]:
    script, keys = _SCRIPT, [store.messages, store.times]

    def mend(member: bytes) -> bool:
        return bool(script(client, keys, [lacks, "mend", store.scale, member]))

    for member in sorted(members):
        if script(client, keys, [lacks, "look", store.scale, member]):
            text = member.decode("utf-8", "replace")
            yield Finding(kind, text, lambda member=member: mend(member))  # type: ignore[misc]


def _stores(settings: Settings) -> tuple[_Store, _Store]:
    layout = own_layout(settings)
    return (
        _Store(
            f"{settings.namespace}:delayed:messages",
            f"{settings.namespace}:delayed",
            _MILLISECONDS,
            Kind.DELAYED_WITHOUT_MESSAGE,
            Kind.DELAYED_WITHOUT_TIME,
        ),
        _Store(
            layout.unacked_key,
            layout.index_key,
            _SECONDS,
            Kind.UNACKED_WITHOUT_MESSAGE,
            Kind.UNACKED_WITHOUT_TIME,
        ),
    )


_SCRIPT = Script.of("taskyard.reconcile", "half")
