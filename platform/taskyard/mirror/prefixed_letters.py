"""Dead letters at a Redis broker: Taskyard's own, and those of installed apps with a prefix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import redis

from taskyard.broker import connection, is_amqp
from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.deadletters import LetterPrefixes, mirror_queue
from taskyard.errors import ServerUnreachable
from taskyard.mirror.delivery_port import Delivery, LetterSource
from taskyard.mirror.kombu_letters import KombuLetters
from taskyard.settings import Settings
from taskyard.wire.failure_backoff import FailureBackoff

__all__ = ["PrefixedLetters", "letter_source"]

_LOOK_EVERY_S: Final = 5.0
_PREFETCH: Final = 500
# Enough to take what is there; our own letters wait meanwhile.
_BRIEFLY_S: Final = 0.05


def letter_source(settings: Settings, records: redis.Redis) -> KombuLetters | PrefixedLetters:
    """Return the source of dead letters for these settings; it connects at first use."""

    def opened(prefix: str | None) -> KombuLetters:
        made = connection(settings, prefix)
        return KombuLetters(made, mirror_queue(settings), prefetch=_PREFETCH)

    if is_amqp(settings):
        return opened(None)
    return PrefixedLetters(opened(None), opened, LetterPrefixes(records, settings.namespace))


class PrefixedLetters:
    """A `LetterSource` of Taskyard's dead letters and of those under each prefix, for one thread.

    `opened` makes the source of a prefix. A source that cannot be read does not stop the others:
    the rights to the prefixes may differ.
    """

    def __init__(
        self,
        own: KombuLetters,
        opened: Callable[[str], KombuLetters],
        prefixes: LetterPrefixes,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._own, self._opened, self._prefixes, self._clock = own, opened, prefixes, clock
        self._others: dict[str, KombuLetters] = {}
        self._looked_at_s = float("-inf")
        self._turn = 0
        self._backoff = FailureBackoff(clock=clock.monotonic_s)

    def take(self, limit: int, wait_s: float) -> Sequence[Delivery]:
        """Take dead letters of one prefix, as `LetterSource.take` does.

        Every second call takes those without a prefix.
        """
        self._look()
        self._turn += 1
        if self._others and self._turn % 2:
            for prefix, source in self._others.items():
                found = self._taken(prefix, source, limit)
                if found:
                    return found
        return [_tagged(self._own, delivery) for delivery in self._own.take(limit, wait_s)]

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge deliveries, as `LetterSource.acknowledge` does."""
        by_source: dict[int, tuple[LetterSource, list[Delivery]]] = {}
        for delivery in deliveries:
            source, theirs = _untagged(delivery)
            by_source.setdefault(id(source), (source, []))[1].append(theirs)
        for source, own in by_source.values():
            source.acknowledge(own)

    def close(self) -> None:
        """Return unacknowledged messages to their queues, and close all sources."""
        for source in (*self._others.values(), self._own):
            source.close()

    def _look(self) -> None:
        """Open sources for new prefixes; a known prefix is read until the mirror ends."""
        now_s = self._clock.monotonic_s()
        if now_s - self._looked_at_s < _LOOK_EVERY_S:
            return
        for prefix in self._prefixes.all():
            if prefix not in self._others:
                self._others[prefix] = self._opened(prefix)
        self._looked_at_s = now_s

    def _taken(self, prefix: str, source: LetterSource, limit: int) -> Sequence[Delivery]:
        what = f"dead letters under the prefix {prefix!r} not taken"
        if self._backoff.waits_s(what):
            return []
        try:
            found = source.take(limit, _BRIEFLY_S)
        except ServerUnreachable as error:
            self._backoff.failed(what, error, action="prefix_unreachable")
            return []
        self._backoff.succeeded(what)
        return [_tagged(source, delivery) for delivery in found]


def _tagged(source: LetterSource, delivery: Delivery) -> Delivery:
    return replace(delivery, tag=(source, delivery.tag))


def _untagged(delivery: Delivery) -> tuple[LetterSource, Delivery]:
    tagged: Any = delivery.tag
    source, tag = tagged
    return source, replace(delivery, tag=tag)
