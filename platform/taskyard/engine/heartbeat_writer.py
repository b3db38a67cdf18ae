"""Write the heartbeat of a worker, with the queues that it reads and its transport.

Between two heartbeats it waits for requests to stop attempts.

This is a bootstep of every worker, with a thread of its own beside the main loop. It belongs to the
worker, not to its consumer: a worker that has lost its broker is still alive.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any, Final

from celery import bootsteps
from redis.exceptions import RedisError

from taskyard.engine.stop_attempts import blocking_s, take_request
from taskyard.records import BEAT_S, AttemptStops, Fleet, Member
from taskyard.store import connect
from taskyard.transport import SentinelTransport, Transport
from taskyard.wire.redacted_logs import logger

__all__ = ["Presence", "member_of"]

log = logger(__name__)

_FORGETS_EVERY: Final = 12
_VISIBILITY_S: Final = 3600.0
# Above this number none is named: a heartbeat must stay small, even if a worker waits for many
# dates.
_MOST_TAGS: Final = 1_000


class Presence(bootsteps.StartStopStep):  # type: ignore[misc]
    """Writes the worker's heartbeat every `BEAT_S`, until the worker ends and signs off."""

    # Processes are forked before the thread starts.
    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._beats: _Beats | None = None

    def start(self, worker: Any) -> None:
        """Start the thread that writes heartbeats."""
        # Made before the thread and the main loop share it.
        worker.app.taskyard.stops.clear()
        self._beats = _Beats(worker)
        self._beats.start()

    def stop(self, worker: Any) -> None:
        """Sign off; wait for a silent server at most as long as one heartbeat takes."""
        if self._beats is not None:
            self._beats.end()
            self._beats.join(BEAT_S)

    def terminate(self, worker: Any) -> None:
        """Sign off after a cold shutdown too, because that also returns the held messages."""
        self.stop(worker)


class _Beats(threading.Thread):
    """The heartbeats of one worker."""

    def __init__(self, worker: Any) -> None:
        super().__init__(name="taskyard-presence", daemon=True)
        self._worker, self._began_s = worker, monotonic()
        self._member: Member | None = None
        self._failing = False
        self.ending = threading.Event()

    def run(self) -> None:
        """Write heartbeats until the worker ends."""
        context = self._worker.app.taskyard
        settings = context.settings
        with closing(connect(settings.need_redis_url(), retries=0)) as client:
            fleet, stops = (
                Fleet(client, settings.namespace),
                AttemptStops(client, settings.namespace),
            )
            beats = 0
            while not self.ending.is_set():
                self._try(lambda: self._beat(fleet))
                beats += 1
                if beats % _FORGETS_EVERY == 0:
                    self._try(fleet.forget_old)
                if not self._failing:
                    context.report_denied(client)
                self._rest(stops, blocking_s(client))
            context.report_denied(client)
            self._try(lambda: self._leave(fleet))

    def end(self) -> None:
        """Let the thread end, also while it waits for requests."""
        self.ending.set()
        context = self._worker.app.taskyard
        stops = AttemptStops(context.records.client, context.settings.namespace)
        try:
            stops.wake(self._worker.hostname)
        except RedisError as error:
            log.debug(
                "Redis did not wake up the thread that writes heartbeats, which ends after its "
                "current wait: %s",
                error,
            )

    def _rest(self, stops: AttemptStops, longest_s: float) -> None:
        """Wait for requests to stop attempts until the next heartbeat is due."""
        context, worker = self._worker.app.taskyard, self._worker.hostname
        due_s = monotonic() + BEAT_S
        while not (self.ending.is_set() or self._failing) and (now_s := monotonic()) < due_s:
            until_s = min(due_s, now_s + longest_s)
            self._try(partial(take_request, context, stops, worker, until_s))
        self.ending.wait(max(due_s - monotonic(), 0.0))

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except RedisError as error:
            if not self._failing:
                log.warning(
                    "this worker's entry in the list of workers was not renewed (its "
                    "heartbeat failed). The worker tries again every %g s; until that works "
                    "the worker may look dead to operators: %s",
                    BEAT_S,
                    error,
                    extra={"action": "presence_not_written"},
                )
            self._failing = True
        else:
            self._failing = False

    def _beat(self, fleet: Fleet) -> None:
        if self._member is None:
            self._member = fleet.join(member_of(self._worker), monotonic() - self._began_s)
        else:
            held = () if self._member.own or not self._member.unacked else self._held_tags()
            queues = _queues(self._worker)
            fleet.beat(replace(self._member, queues=queues, held=held))

    def _held_tags(self) -> tuple[str, ...]:
        ports = self._worker.app.taskyard.ports
        return () if ports is None else ports.work.held_tags(_MOST_TAGS)

    def _leave(self, fleet: Fleet) -> None:
        if self._member is not None:
            fleet.leave(self._member)


def member_of(worker: Any) -> Member:
    """Return a worker's entry in the list of workers: its name, and where its messages are.

    A worker on RabbitMQ has only a name: the broker itself returns its messages.
    """
    app = worker.app
    with app.connection_for_read() as connection:
        cls, options = connection.get_transport_cls(), connection.transport_options or {}
    if cls.driver_type != "redis":
        return Member(worker.hostname)
    prefix = str(options.get("global_keyprefix") or "")
    return Member(
        worker.hostname,
        unacked=prefix + str(options.get("unacked_key") or "unacked"),
        index=prefix + str(options.get("unacked_index_key") or "unacked_index"),
        visibility_timeout_s=float(options.get("visibility_timeout") or _VISIBILITY_S),
        own=issubclass(cls, Transport | SentinelTransport),
        returns=app.taskyard.returns_abandoned,
    )


def _queues(worker: Any) -> tuple[str, ...]:
    """Return the queues that the worker reads now, also those that a switch holds.

    None before it reads any.
    """
    reading = getattr(worker, "consumer", None)
    consumer = getattr(reading, "task_consumer", None)
    if reading is None or consumer is None:
        return ()
    held = reading.held_queues.names
    return (*(queue.name for queue in list(consumer.queues) if queue.name not in held), *held)
