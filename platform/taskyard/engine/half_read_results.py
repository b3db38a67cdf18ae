"""Finish reading messages of pool processes that were half read when the broker was lost.

A long outcome is read in pieces. Celery keeps the part that was read in its event loop, and empties
that loop when it loses its broker. After that Celery takes the rest of the outcome for the length
of another message: no further message of the process is read, or the worker ends.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from inspect import isgenerator
from types import GeneratorType
from typing import Any

from celery.concurrency import asynpool

__all__ = ["WholeResults"]


class WholeResults(asynpool.ResultHandler):  # type: ignore[misc]
    """Celery's reader of outcomes, which continues half-read messages in a new event loop."""

    @cached_property
    def _halves(self) -> dict[int, tuple[Any, GeneratorType[Any, Any, Any]]]:
        """Return, for each pipe, its process and the generator that has read a part."""
        return {}

    def _make_process_result(self, hub: Any) -> Callable[[int], None]:
        read = super()._make_process_result(hub)

        def read_or_read_on(fd: int) -> None:
            half = self._half(fd)
            if half is None:
                read(fd)
            else:
                hub.add_reader(fd, half)
                _read_on(hub, fd, half)
            self._keep(hub, fd)

        return read_or_read_on

    def _keep(self, hub: Any, fd: int) -> None:
        callback, _ = hub.readers.get(fd) or (None, ())
        if isgenerator(callback):
            self._halves[fd] = self.fileno_to_outq.get(fd), callback
        else:
            self._halves.pop(fd, None)

    def _half(self, fd: int) -> GeneratorType[Any, Any, Any] | None:
        """Return the half-read message of the process with this pipe; None if there is none."""
        process, half = self._halves.get(fd, (None, None))
        if half is None or half.gi_frame is None or self.fileno_to_outq.get(fd) is not process:
            return None
        return half

    def _finish_partial_read(self, fd: int, proc: Any) -> bool:
        half = self._half(fd)
        if half is not None and self._hub is not None:
            self._hub.add_reader(fd, half)
        gone: bool = super()._finish_partial_read(fd, proc)
        return gone


def _read_on(hub: Any, fd: int, half: GeneratorType[Any, Any, Any]) -> None:
    """Continue to read a half-read message, as Celery's event loop does."""
    try:
        next(half, None)
    except (OSError, EOFError):
        hub.remove_reader(fd)
