"""Stop taking from queues that a switch holds, and give back what no process has.

The messages of a held queue return in their order as its next ones, and no counter changes. All is
done in the thread of the main loop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from kombu.transport import virtual
from redis.exceptions import RedisError

from taskyard.engine.known_switches import KnownSwitches
from taskyard.engine.ports import HeldMessage, Messages, WayBack
from taskyard.engine.read_message import job_id_of, was_delivered_before
from taskyard.engine.source_queue import QUEUE
from taskyard.wire.redacted_logs import logger

__all__ = ["GATHER_S", "HeldQueues"]

log = logger(__name__)

# What processes were about to begin comes back within some milliseconds. It is older than what
# waited for a process, so that all of it must be put back together.
GATHER_S: Final = 0.3
_FORGET: Final = "the deliveries of messages that a switch holds are still counted"


class HeldQueues:
    """The queues of one worker that a switch holds; `consumer` is Celery's."""

    def __init__(self, consumer: Any, messages: Messages) -> None:
        self._consumer, self._messages = consumer, messages
        # kombu's queues by name, to consume them again.
        self._stopped: dict[str, Any] = {}
        self._returning: list[tuple[Any, Callable[[], object]]] = []
        self._drains = False

    @property
    def names(self) -> tuple[str, ...]:
        """Return the broker's names of the queues that are held; any thread may ask."""
        return tuple(self._stopped)

    @property
    def queues(self) -> list[Any]:
        """Return kombu's queues that are held; any thread may ask."""
        return list(self._stopped.values())

    @property
    def _known(self) -> KnownSwitches:
        known: KnownSwitches = self._consumer.app.taskyard.known_switches
        return known

    def forget(self) -> None:
        """Forget the queues of a connection that has ended: the next one consumes all again."""
        self._stopped.clear()
        self._returning.clear()

    # -- stop and start ------------------------------------------------------------------------

    def differ(self) -> bool:
        """Return whether `apply` has something to do; it changes nothing."""
        consumer = self._consumer.task_consumer
        if consumer is None or not self._messages.is_taking:
            return False
        held = [queue.name for queue in list(consumer.queues) if self._holds(queue)]
        return bool(held) or any(not self._holds(queue) for queue in [*self._stopped.values()])

    def apply(self) -> None:
        """Stop taking from the queues that are held now, and take again from those that are not."""
        consumer = self._consumer.task_consumer
        if consumer is None or not self._messages.is_taking:
            return
        for queue in list(consumer.queues):
            if self._holds(queue):
                self._stop(consumer, queue)
        freed = [queue for queue in self._stopped.values() if not self._holds(queue)]
        if freed:
            self._start(consumer, freed)

    def _holds(self, queue: Any) -> bool:
        # Each worker gets a copy of what goes to a fanout exchange, and would lose it.
        if queue.exchange is not None and queue.exchange.type == "fanout":
            return False
        return self._known.holds(self._consumer.app.taskyard.taken_as(queue.name))

    def _stop(self, consumer: Any, queue: Any) -> None:
        name, tags = queue.name, consumer._active_tags
        if name in tags:
            # Before kombu forgets the tag: what comes until RabbitMQ confirms this is known by it.
            consumer.channel.basic_cancel(tags[name])
            tags.pop(name, None)
        consumer.cancel_by_queue(name)
        self._stopped[name] = queue
        withdrawn = self._messages.withdraw(queues=(name,))
        self._forget_deliveries(withdrawn)
        for held in withdrawn:
            self._gather(held.message, partial(self._messages.give_back, held, WayBack.AS_IT_CAME))
        log.info(
            "a switch holds queue %s: this worker takes no more from it and returns the %d "
            "messages that no process has",
            name,
            len(withdrawn),
            extra={"action": "queue_held", "queue": name, "count": len(withdrawn)},
        )

    def _start(self, consumer: Any, queues: list[Any]) -> None:
        # An operator may have cancelled the consumer meanwhile (`celery control cancel_consumer`).
        selected = {queue.name for queue in self._consumer.app.amqp.queues.consume_from.values()}
        for queue in queues:
            del self._stopped[queue.name]
            if queue.name in selected:
                consumer._queues[queue.name] = queue
        consumer.consume()
        for queue in queues:
            log.info(
                "no switch holds queue %s any more: this worker takes from it again",
                queue.name,
                extra={"action": "queue_resumed", "queue": queue.name},
            )

    # -- give back -----------------------------------------------------------------------------

    def take_back(self, message: Any) -> bool:
        """Return a message of a held queue that came too late; return whether it is one."""
        if getattr(message, QUEUE, None) not in self._stopped:
            return False
        held = self._messages.bare(message)
        self._gather(message, partial(self._messages.give_back, held, WayBack.AS_IT_CAME))
        return True

    def return_held(self, message: Any, give_back: Callable[[], object]) -> bool:
        """Hold the queue of a message that `begin` refused, and give the message back.

        Return False, and do nothing, if the worker does not take the message by that queue's name:
        it would get the message again at once.
        """
        if self._drains:
            give_back()
            return True
        name = getattr(message, QUEUE, None)
        queues = self._consumer.app.amqp.queues.consume_from.values()
        if name not in self._stopped and name not in {queue.name for queue in queues}:
            return False
        self._known.note_answer(self._consumer.app.taskyard.taken_as(name))
        self._consumer.call_soon(self._hold_and_gather, message, give_back)
        return True

    def _hold_and_gather(self, message: Any, give_back: Callable[[], object]) -> None:
        self.apply()
        self._gather(message, give_back)

    def _gather(self, message: Any, give_back: Callable[[], object]) -> None:
        if self._drains:
            give_back()
            return
        self._returning.append((message, give_back))
        if len(self._returning) == 1:
            self._consumer.timer.call_after(GATHER_S, self._consumer.call_soon, (self.flush,))

    def flush(self) -> None:
        """Put the gathered messages back, so that each queue has them in their order again."""
        returning, self._returning = self._returning, []
        returning.sort(key=lambda each: _serial(each[0]))
        # Redis: each becomes the next one. RabbitMQ: those that returned first are first.
        redis_like = [isinstance(message.channel, virtual.Channel) for message, _ in returning]
        if any(redis_like):
            returning.reverse()
        for message, give_back in returning:
            # The broker has taken back what a lost connection had.
            if _is_open(message.channel):
                give_back()

    def drain(self) -> None:
        """Put back what is gathered, now and later: the worker ends."""
        self._drains = True
        self.flush()

    def _forget_deliveries(self, withdrawn: list[HeldMessage]) -> None:
        """Set the deliveries of messages back to 0: a switch is no fault of theirs.

        RabbitMQ marks each message that returns, and the next worker counts a marked one.
        """
        marked = [
            job_id_of(held.message)
            for held in withdrawn
            if was_delivered_before(held.message)
            or not isinstance(held.message.channel, virtual.Channel)
        ]
        context = self._consumer.app.taskyard
        if not marked:
            return
        try:
            context.records.attempts.forget_deliveries(marked)
        except RedisError as error:
            context.backoff.failed(_FORGET, error, action="deliveries_kept")
        else:
            context.backoff.succeeded(_FORGET)


def _serial(message: Any) -> int:
    """Return the number of a delivery; 0 for kombu's own Redis transport, which has none."""
    tag = str(message.delivery_tag).rpartition(":")[2]
    return int(tag) if tag.isdecimal() else 0


def _is_open(channel: Any) -> bool:
    return bool(getattr(channel, "is_open", not getattr(channel, "closed", False)))
