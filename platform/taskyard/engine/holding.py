"""Messages that could not be settled: held for their wait, then given back.

Given back at once they would come again at once, to be refused again, as fast as the machine can.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from taskyard.transport import QoS

__all__ = ["MOST_HELD", "Holding"]

# So many do not take the place of others that may run; beyond them a worker takes less.
MOST_HELD: Final = 16


class Holding:
    """What one worker's main process holds back. `consumer` is Celery's."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._held = 0

    def hold(
        self,
        message: Any,
        give_back: Callable[[], object],
        wait_s: float,
        *,
        most: int = MOST_HELD,
    ) -> None:
        """Call `give_back` after `wait_s`, unless the connection was lost: the broker has it then.

        Until then the message is unacknowledged, and a worker that ends returns it at once. While
        fewer than `most` are held, another message may be taken in its place.
        """
        makes_room = self._held < most
        self._held += 1
        if makes_room:
            self._consumer.qos.increment_eventually()

        def end() -> None:
            self._held -= 1
            if not _is_open(message.channel):
                return
            if makes_room:
                self._consumer.qos.decrement_eventually()
            _spare_another_wait(message)
            give_back()

        # In the loop's own thread, where there is one.
        self._consumer.timer.call_after(wait_s, self._consumer.call_soon, (end,))


def _is_open(channel: Any) -> bool:
    return bool(getattr(channel, "is_open", not getattr(channel, "closed", False)))


def _spare_another_wait(message: Any) -> None:
    """Our transport holds what comes back again and again, too."""
    qos = getattr(message.channel, "qos", None)
    if isinstance(qos, QoS):
        qos.note_counted(message.delivery_tag)
