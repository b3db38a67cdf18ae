"""The port `Messages` over Celery's consumer: which messages it holds, and how they return.

Celery's consumer takes messages by itself, as many as its prefetch count allows. A message then
waits in Celery's own structures for a process, a date or a rate limit. A pool of threads or
greenlets gets each message at once, and no message can be withdrawn from it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final

from celery.worker import state as worker_state

from taskyard.engine.held_queues import HeldQueues
from taskyard.engine.ports import HeldMessage, WaitsFor, WayBack
from taskyard.engine.read_message import job_id_of
from taskyard.engine.source_queue import QUEUE
from taskyard.transport import QoS
from taskyard.wire.redacted_logs import logger

__all__ = ["MOST_HELD", "BareMessage", "CeleryMessages"]

log = logger(__name__)

# Up to this many held messages do not count; beyond them a worker takes fewer.
MOST_HELD: Final = 16


@dataclass(frozen=True, slots=True)
class BareMessage:
    """A kombu message that no request settles.

    With `errors` it logs these errors of the broker instead of raising them.
    """

    message: Any
    errors: tuple[type[BaseException], ...]

    @property
    def acknowledged(self) -> bool:
        """Return whether the message was acknowledged, and not returned to its queue."""
        return bool(self.message._state == "ACK")

    def acknowledge(self) -> None:
        """Acknowledge the message at the broker."""
        self.message.ack_log_error(log, self.errors)

    def reject(self, requeue: bool = False) -> None:
        """Put the message back into its queue, or drop it."""
        self.message.reject_log_error(log, self.errors, requeue=requeue)


@dataclass(frozen=True, slots=True)
class InLine:
    """A message that has not begun: what it waits for, and how to remove it from its line."""

    message: Any
    waits_for: WaitsFor
    leave: Callable[[], object]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A message that `hold` keeps; `made_room` if another message may be taken in its place."""

    message: Any
    made_room: bool
    on_drain: Callable[[], object]


class CeleryMessages:
    """The messages that the main process of one worker holds; `consumer` is Celery's."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._kept: dict[object, _Kept] = {}
        self._drains = False
        self.is_taking = True
        self.held_queues = HeldQueues(consumer, self)

    # -- take ----------------------------------------------------------------------------------

    def stop_taking(self) -> None:
        """Stop taking messages: cancel the consumer of every queue, in the main loop."""
        if self.is_taking:
            self.is_taking = False
            self._consumer.call_soon(self._cancel_queues)

    def _cancel_queues(self) -> None:
        queues, consumer = self._consumer.app.amqp.queues, self._consumer.task_consumer
        for queue in tuple(queues.consume_from):
            # The queues that a later connection consumes.
            queues.deselect(queue)
            if consumer is not None:
                consumer.cancel_by_queue(queue)

    def over_prefetch(self) -> int:
        """Return by how many messages the prefetch count is exceeded, as the transport says.

        The number is 0 unless the pool has processes, and a line of messages that wait for
        them.
        """
        qos = own_qos(getattr(self._consumer, "task_consumer", None))
        if qos is None or self._consumer.controller.semaphore is None:
            return 0
        return qos.over_prefetch()

    def withdraw(
        self,
        job_ids: Collection[str] | None = None,
        *,
        queues: Collection[str] | None = None,
        waiting_for: Collection[WaitsFor] = tuple(WaitsFor),
        most: int | None = None,
    ) -> list[HeldMessage]:
        """Remove messages from Celery's lines, and from the messages that `hold` keeps."""
        found = (
            each
            for each in self.in_line()
            if each.waits_for in waiting_for
            and (job_ids is None or job_id_of(each.message) in job_ids)
            and (queues is None or getattr(each.message, QUEUE, None) in queues)
        )
        withdrawn: list[HeldMessage] = []
        for each in tuple(islice(found, most)):
            each.leave()
            # If the connection is lost meanwhile, this consumer ends, as anywhere else.
            withdrawn.append(BareMessage(each.message, ()))
        return withdrawn

    # -- hold ----------------------------------------------------------------------------------

    def hold(
        self,
        message: Any,
        give_back: Callable[[], object],
        wait_s: float,
        *,
        most: int = MOST_HELD,
        on_drain: Callable[[], object] | None = None,
    ) -> None:
        """Keep a message unacknowledged, and call `give_back` after `wait_s`.

        If the connection is lost, nothing is called: the broker delivers the message again.
        A worker that drains returns the message at once, by `on_drain` if it is given.
        While fewer than `most` messages are held, another one may be taken in its place.
        """
        if self._drains:
            (on_drain or give_back)()
            return
        made_room = len(self._kept) < most
        if made_room:
            self._consumer.qos.increment_eventually()
        entry = object()
        self._kept[entry] = _Kept(message, made_room, on_drain or give_back)
        # In the loop's own thread, if there is a loop.
        self._consumer.timer.call_after(
            wait_s, self._consumer.call_soon, (self._end, entry, give_back)
        )

    def in_line(self) -> Iterator[InLine]:
        """Yield the messages that have not begun and can leave their line.

        The newest of each line comes first.
        """
        yield from _for_a_process(self._consumer)
        yield from _for_a_date(self._consumer)
        yield from _for_their_rate(self._consumer)
        for entry, kept in reversed(tuple(self._kept.items())):
            if _is_open(kept.message.channel):
                yield InLine(kept.message, WaitsFor.RETURN, partial(self._leave, entry))

    def end_holding(self) -> None:
        """Put all held messages back into their queues, for other workers.

        The worker is draining: it takes no more messages, and its last job may run for hours.
        """
        self._drains = True
        self.held_queues.drain()
        for entry, kept in tuple(self._kept.items()):
            self._end(entry, kept.on_drain)

    def _end(self, entry: object, act: Callable[[], object]) -> None:
        message = self._leave(entry)
        if message is not None:
            # Our transport keeps a message that comes back repeatedly; do not wait twice.
            _mark(message, WayBack.COUNTED)
            act()

    def _leave(self, entry: object) -> Any | None:
        """Remove and return the message; return None if this worker does not hold it any more."""
        kept = self._kept.pop(entry, None)
        if kept is None or not _is_open(kept.message.channel):
            return None
        if kept.made_room:
            self._consumer.qos.decrement_eventually()
        return kept.message

    # -- what a switch holds -------------------------------------------------------------------

    def return_held(self, message: Any, give_back: Callable[[], object]) -> bool:
        """Stop taking from the message's queue, and put the message back as its next one."""
        return self.held_queues.return_held(message, give_back)

    def bare(self, message: Any) -> HeldMessage:
        """Return a message that no request settles."""
        return BareMessage(message, self._consumer.connection_errors)

    # -- give back -----------------------------------------------------------------------------

    def give_back(self, held: HeldMessage, way: WayBack) -> None:
        """Put a message back into its queue."""
        _mark(held.message, way)
        held.reject(requeue=True)


def _for_a_process(consumer: Any) -> Iterator[InLine]:
    semaphore = consumer.controller.semaphore
    # kombu has no other name for requests that wait for a process, in their order.
    line: deque[Any] = deque() if semaphore is None else semaphore._waiting
    for place in reversed(tuple(line)):
        _, (request, *_), _ = place
        yield InLine(request.message, WaitsFor.PROCESS, _Leaving(line, place, request))


def _for_a_date(consumer: Any) -> Iterator[InLine]:
    # A request whose date has come stays among the scheduled ones while it waits for its rate
    # limit.
    beyond = {id(request) for line in _rate_lines(consumer) for request, _ in line}
    for request in tuple(worker_state.scheduled_requests):
        timer = request._eta_timer_entry
        if timer is not None and id(request) not in beyond:
            yield InLine(request.message, WaitsFor.DATE, _LeavingTimer(consumer, timer, request))


def _for_their_rate(consumer: Any) -> Iterator[InLine]:
    for line in _rate_lines(consumer):
        for place in reversed(tuple(line)):
            request, _ = place
            yield InLine(request.message, WaitsFor.RATE_LIMIT, _Leaving(line, place, request))


def _rate_lines(consumer: Any) -> list[deque[Any]]:
    return [bucket.contents for bucket in consumer.task_buckets.values() if bucket is not None]


@dataclass(frozen=True, slots=True)
class _Leaving:
    """Removes a message from one of Celery's lines."""

    line: deque[Any]
    place: Any
    request: Any

    def __call__(self) -> None:
        self.line.remove(self.place)
        worker_state.task_ready(self.request)


@dataclass(frozen=True, slots=True)
class _LeavingTimer:
    """Cancels one of Celery's timers, and lets another message be taken in its place."""

    consumer: Any
    timer: Any
    request: Any

    def __call__(self) -> None:
        self.consumer.timer.cancel(self.timer)
        self.consumer.qos.decrement_eventually()
        worker_state.task_ready(self.request)


def own_qos(consumer: Any) -> QoS | None:
    """Return the object that counts messages in Taskyard's Redis transport.

    None for another transport or channel. `consumer` is anything with a kombu channel: a
    consumer or a message.
    """
    qos = getattr(getattr(consumer, "channel", None), "qos", None)
    return qos if isinstance(qos, QoS) else None


def _mark(message: Any, way: WayBack) -> None:
    qos = own_qos(message)
    if qos is None:
        return  # RabbitMQ, or kombu's own transport: they return messages in one way only
    match way:
        case WayBack.AS_IT_CAME:
            qos.mark_not_started(message.delivery_tag)
        case WayBack.COUNTED:
            qos.note_counted(message.delivery_tag)
        case WayBack.UNCOUNTED:
            pass


def _is_open(channel: Any) -> bool:
    return bool(getattr(channel, "is_open", not getattr(channel, "closed", False)))
