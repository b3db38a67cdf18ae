"""The bootstep that keeps a worker from taking what a switch holds.

It reads the switches before the worker takes its first message, and every second. It also releases
parked messages of switches that are off.
"""

from __future__ import annotations

from typing import Any, Final

from celery import bootsteps
from redis.exceptions import RedisError

from taskyard.broker import RELEASE_BATCH, ParkedMessages, RedisPublisher
from taskyard.clock import SYSTEM_CLOCK
from taskyard.engine.held_queues import HeldQueues
from taskyard.engine.known_switches import KnownSwitches
from taskyard.engine.switch_reader import SwitchReader
from taskyard.wire.failure_backoff import FailureBackoff

__all__ = ["HoldQueues"]

# How often the main loop compares its queues with the switches that the thread has read.
_LOOK_S: Final = 0.2
_RELEASE_S: Final = 1.0
# At most 2,000 messages a second and worker, so that they cannot stop the worker's loop.
_ROUNDS: Final = 20
# Switches that were read longer ago than this are not known well enough to release anything.
_FRESH_S: Final = 5.0
_RELEASE: Final = "messages of switches that are off were not released from the delay store"


class HoldQueues(bootsteps.StartStopStep):  # type: ignore[misc]
    """Stops and starts the consumers of queues as the switches say."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._entries: list[Any] = []
        self._reader: SwitchReader | None = None

    def start(self, consumer: Any) -> None:
        """Read the switches, leave out the held queues, and start to look at both repeatedly."""
        context, held = consumer.app.taskyard, consumer.held_queues
        self._reader = SwitchReader(context.settings, context.known_switches)
        self._reader.read_now()
        held.forget()
        held.apply()
        self._reader.start()
        repeatedly = consumer.timer.call_repeatedly
        self._entries = [repeatedly(_LOOK_S, _look, (consumer, held))]
        publisher = context.publisher
        if isinstance(publisher, RedisPublisher):
            releases = _Releases(publisher.parked, context.known_switches, context.backoff)
            self._entries.append(repeatedly(_RELEASE_S, releases.release))

    def stop(self, consumer: Any) -> None:
        """Stop reading the switches."""
        for entry in self._entries:
            entry.cancel()
        self._entries = []
        if self._reader is not None:
            self._reader.end()


def _look(consumer: Any, held: HeldQueues) -> None:
    if held.differ():
        # In the loop's own thread, if there is a loop.
        consumer.call_soon(held.apply)


class _Releases:
    """The parked messages of one worker's broker, which return when their switch is off."""

    def __init__(
        self, parked: ParkedMessages, known: KnownSwitches, backoff: FailureBackoff
    ) -> None:
        self._parked, self._known, self._backoff = parked, known, backoff
        self._quiet_until = float("-inf")

    def release(self) -> None:
        """Release the messages of switches that are off, in batches."""
        now_s = SYSTEM_CLOCK.monotonic_s()
        if now_s < self._quiet_until or now_s - self._known.read_s > _FRESH_S:
            return
        try:
            self._release()
        except RedisError as error:
            wait_s = self._backoff.failed(_RELEASE, error, action="release_parked_unreachable")
            self._quiet_until = now_s + wait_s
        else:
            self._backoff.succeeded(_RELEASE)

    def _release(self) -> None:
        rounds = _ROUNDS
        for switch in sorted(self._parked.switches()):
            while rounds and not self._known.is_on(switch):
                rounds -= 1
                if self._parked.release(switch) < RELEASE_BATCH:
                    break
