"""The switches as one worker knows them: what it has read, and what `begin` has answered since.

A worker must stop taking from a held queue before a job of it begins, and must not start again
because a read was older than an answer, or because Redis has lost its data for a moment.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from taskyard.clock import Clock, us_of
from taskyard.errors import InvalidSwitch
from taskyard.switches import Mode, SwitchesRead, SwitchField, SwitchState, fields_of
from taskyard.switches.redis_switches import FARTHEST_AHEAD_US

__all__ = ["LOST_S", "KnownSwitches"]

# No program removes a switch: one that is gone, or older than before, was lost with Redis. The
# relay writes it again within some seconds.
LOST_S: Final = 30.0


def _aged(state: SwitchState, now_us: int) -> SwitchState:
    """Return a state that any other follows if its version is one that no clock has given."""
    return state if state.version <= now_us + FARTHEST_AHEAD_US else replace(state, version=0)


class KnownSwitches:
    """The switches that one worker knows; any thread may call every method.

    Before the first read every queue is held if `holds_unread`, else none.
    """

    def __init__(self, clock: Clock, *, holds_unread: bool) -> None:
        self._clock, self._holds_unread = clock, holds_unread
        self._lock = threading.Lock()
        self._states: Mapping[SwitchField, SwitchState] = {}
        # Since when a switch is missing, or older than it was.
        self._lost_since: dict[SwitchField, float] = {}
        # Queues of which `begin` has refused a job, and when that was known here.
        self._answered: dict[str, float] = {}
        self._server_us, self._read_s = 0, float("-inf")
        self.answered = threading.Event()
        """Set when an answer must be compared with a new read."""

    @property
    def read_s(self) -> float:
        """Return when the switches were read last, on the monotonic clock."""
        return self._read_s

    def note_read(self, read: SwitchesRead, began_s: float) -> None:
        """Note what was read, by a call that began at `began_s` on the monotonic clock."""
        with self._lock:
            # What cannot be read counts as a hold, as `begin` has it.
            found = {**read.in_force(), **read.states}
            self._states = self._merged(
                {field: _aged(state, read.now_us) for field, state in found.items()}, began_s
            )
            self._server_us, self._read_s = read.now_us, self._clock.monotonic_s()
            # An answer that came after the call began is newer than what was read.
            newer = {queue: at for queue, at in self._answered.items() if at >= began_s}
            self._answered = newer

    def _merged(
        self, states: Mapping[SwitchField, SwitchState], now_s: float
    ) -> dict[SwitchField, SwitchState]:
        merged = dict(states)
        for field, known in self._states.items():
            found = states.get(field)
            if found is not None and found.version >= known.version:
                self._lost_since.pop(field, None)
            elif now_s - self._lost_since.setdefault(field, now_s) <= LOST_S:
                merged[field] = known
            else:
                del self._lost_since[field]
        return merged

    def note_answer(self, queue: str) -> None:
        """Note that `begin` refused a job because a switch holds all of its queue.

        The queue is held until a later read says otherwise.
        """
        with self._lock:
            self._answered[queue] = self._clock.monotonic_s()
        self.answered.set()

    def holds(self, queue: str) -> bool:
        """Return whether a switch holds all jobs of the queue, which has its configured name."""
        with self._lock:
            if queue in self._answered:
                return True
            if self._read_s == float("-inf"):
                return self._holds_unread
            now_us = self._now_us()
            found = (self._states.get(field) for field in fields_of(queue, "", None))
            return any(
                state is not None and state.mode is Mode.HOLD and state.in_force(now_us)
                for state in found
            )

    def is_on(self, switch: str) -> bool:
        """Return whether the switch with this text as its field is on, at the last read."""
        try:
            field = SwitchField.parse(switch)
        except InvalidSwitch:
            return False
        with self._lock:
            state = self._states.get(field)
            return state is not None and state.in_force(self._now_us())

    def _now_us(self) -> int:
        """Return the server's time, perhaps a little too early: `begin` decides about the end."""
        return self._server_us + us_of(self._clock.monotonic_s() - self._read_s)
