"""Messages that could not be settled: held for their wait, then given back.

Given back at once they would come again at once, to be refused again, as fast as the machine can.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from taskyard.transport import QoS

__all__ = ["MOST_HELD", "Holding"]

# So many do not take the place of others that may run; beyond them a worker takes less.
MOST_HELD: Final = 16


class Holding:
    """What one worker's main process holds back. `consumer` is Celery's."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        # What is done where the worker ends first; by the entry of each message.
        self._held: dict[object, Callable[[], None]] = {}
        self._drains = False

    def hold(
        self,
        message: Any,
        give_back: Callable[[], object],
        wait_s: float,
        *,
        most: int = MOST_HELD,
        on_drain: Callable[[], object] | None = None,
    ) -> None:
        """Call `give_back` after `wait_s`, unless the connection was lost: the broker has it then.

        Until then the message is unacknowledged. A worker that is told to end gives it back at
        once, by `on_drain` where there is one. While fewer than `most` are held, another message
        may be taken in its place.
        """
        if self._drains:
            (on_drain or give_back)()
            return
        makes_room = len(self._held) < most
        if makes_room:
            self._consumer.qos.increment_eventually()
        entry = object()

        def end(act: Callable[[], object]) -> None:
            if self._held.pop(entry, None) is None or not _is_open(message.channel):
                return
            if makes_room:
                self._consumer.qos.decrement_eventually()
            _spare_another_wait(message)
            act()

        self._held[entry] = partial(end, on_drain or give_back)
        # In the loop's own thread, where there is one.
        self._consumer.timer.call_after(wait_s, self._consumer.call_soon, (end, give_back))

    def drain(self) -> None:
        """Give everything back: the worker takes no more, and its last job may run for hours."""
        self._drains = True
        for end in tuple(self._held.values()):
            end()


def _is_open(channel: Any) -> bool:
    return bool(getattr(channel, "is_open", not getattr(channel, "closed", False)))


def _spare_another_wait(message: Any) -> None:
    """Our transport holds what comes back again and again, too."""
    qos = getattr(message.channel, "qos", None)
    if isinstance(qos, QoS):
        qos.note_counted(message.delivery_tag)
