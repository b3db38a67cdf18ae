"""Forward the messages of rerouted jobs out of a RabbitMQ queue that no worker reads.

RabbitMQ cannot be searched. So the messages are taken and not acknowledged; those of rerouted jobs
are published in their new queues and acknowledged, and RabbitMQ puts all others back where they
were when the channel is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from amqp.exceptions import NotFound
from kombu import Queue

from taskyard.broker import connection, is_amqp
from taskyard.broker.queue_name_and_priority import queue_name
from taskyard.engine.read_message import is_identified, job_id_of, raw_message, stamp_of
from taskyard.engine.retry_message import NextMessage
from taskyard.errors import Refused
from taskyard.jobs.states import State
from taskyard.queues import fitting_priority
from taskyard.records import Record, Records
from taskyard.relay.ports import PublisherPort
from taskyard.settings import Settings
from taskyard.wire import Stamp

__all__ = ["MOST", "Forwarded", "forward_waiting"]

MOST: Final = 10_000
"""How many messages are taken at once, since all of them are in this process' memory."""

_BATCH: Final = 500
# A quorum queue drops a message at its limit, 20 by default, and a dying worker counts too.
_RETURNS: Final = 10


@dataclass(frozen=True, slots=True)
class Forwarded:
    """How many messages were forwarded, and how many went back into the queue."""

    forwarded: int
    returned: int


def forward_waiting(
    settings: Settings, records: Records, publisher: PublisherPort, queue: str
) -> Forwarded:
    """Forward the messages of rerouted jobs among the next `MOST` of a queue.

    Raises `Refused` at Redis, for a queue that does not exist or that a worker reads, and where a
    message was returned so often that RabbitMQ may drop it; redis-py's, kombu's and amqp's errors,
    and `PublishFailed`. After an error the messages that were not forwarded are in their queue.
    """
    if not is_amqp(settings):
        raise Refused(
            "the broker is Redis, where the relay moves waiting messages by itself; a message far "
            "behind others moves when a worker takes it"
        )
    name = queue_name(settings, queue)
    with connection(settings) as broker, broker.channel() as channel:
        waiting = _waiting(channel, name, queue)
        taken = list(_taken(channel, name, min(waiting, MOST), queue))
        done = [
            message
            for message, record in _rerouted(records, taken)
            if _forward(settings, records, publisher, message, record)
        ]
        return Forwarded(len(done), len(taken) - len(done))


def _waiting(channel: Any, name: str, queue: str) -> int:
    try:
        declared = channel.queue_declare(queue=name, passive=True)
    except NotFound:
        raise Refused(f"RabbitMQ has no queue {queue!r}. See: taskyard queues list") from None
    if declared.consumer_count:
        raise Refused(
            f"workers read queue {queue!r} (consumers: {declared.consumer_count}), and forward "
            "the messages of moved jobs themselves"
        )
    return int(declared.message_count)


def _taken(channel: Any, name: str, count: int, queue: str) -> Iterator[Any]:
    get: Callable[[], Any] = Queue(name, no_declare=True)(channel).get
    for _ in range(count):
        message = get()
        if message is None:
            return
        returns = (message.headers or {}).get("x-delivery-count")
        if isinstance(returns, int) and returns >= _RETURNS:
            raise Refused(
                f"a message of queue {queue!r} was returned {returns} times already, and RabbitMQ "
                "may drop it at the queue's delivery limit. Nothing was forwarded. Start a worker "
                "for this queue: it publishes such messages anew"
            )
        yield message


def _rerouted(records: Records, taken: Sequence[Any]) -> Iterator[tuple[Any, Record]]:
    """Yield the messages of rerouted jobs with their records."""
    known = [message for message in taken if is_identified(message)]
    for start in range(0, len(known), _BATCH):
        batch = known[start : start + _BATCH]
        states = records.states([job_id_of(message) for message in batch])
        for message, state in zip(batch, states, strict=True):
            if isinstance(state, Exception):
                raise state
            if state[0] is State.REROUTED:
                yield message, records.read(job_id_of(message))


def _forward(
    settings: Settings, records: Records, publisher: PublisherPort, message: Any, record: Record
) -> bool:
    """Publish, confirm and acknowledge as a worker does; return False for a stale message."""
    stamp, first = stamp_of(message), record.fields.get("moved_from")
    at = Stamp(record.epoch, record.generation, record.number("seq"))
    if record.state is not State.REROUTED or not first:
        return False
    if stamp is not None:
        place = (stamp.epoch, stamp.generation, stamp.seq)
        since = tuple(int(part) for part in first.split(":"))
        if not since <= place < (at.epoch, at.generation, at.seq):
            return False
    kept, priority = NextMessage.of(record), record.fields.get("priority")
    policy = None if stamp is None else stamp.policy
    known = settings.queues.get(record.queue)
    publisher.publish(
        raw_message(message) if kept is None else kept.message,
        queue=record.queue,
        priority=fitting_priority(int(priority) if priority else None, known),
        job_id=record.job_id,
        stamp=Stamp(at.epoch, at.generation, at.seq, records.now_us(), policy),
        strip=("eta",),
    )
    records.requeued(record.job_id, at.epoch, at.generation)
    message.ack()
    return True
