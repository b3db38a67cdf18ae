"""Return the messages of dead workers that read their queues by kombu's Redis transport.

It is a bootstep of protecting workers on Redis. Taskyard's own transport names the owner of each
unacknowledged message, and returns the messages of a dead owner. kombu's transport does not: there
a message waits for the visibility timeout. But the record of a job that has begun names its worker,
and that worker's heartbeat says whether it is alive.

The message of a protected job is returned if its record is running, its lease expired a while ago
and its worker is dead. The messages that a dead worker listed in its last heartbeat are returned
too, for jobs that have not begun or are decided. If that worker is alive after all, the usual rules
for an expired lease apply: another attempt has a newer token, so one outcome counts and the other
is refused. The late acknowledgement of the old worker meets another delivery tag
(`mark_redelivered`), so it removes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import redis
from celery import bootsteps
from redis.exceptions import RedisError

from taskyard.broker import RedisPublisher
from taskyard.broker.redis_keys import Layout
from taskyard.clock import us_of
from taskyard.engine.queue_routes import queue_named
from taskyard.engine.read_message import named_task
from taskyard.install.installed_context import InstalledContext
from taskyard.install.modes import Mode
from taskyard.jobs.states import State
from taskyard.records import Fleet, Record, left_by_dead, lives
from taskyard.settings import Settings
from taskyard.transport import give_back, owner_of
from taskyard.transport.stored_messages import stored_parts
from taskyard.wire.redacted_logs import logger
from taskyard.wire.stamp_header import Stamp

__all__ = ["Returner", "late_s", "return_abandoned"]

log = logger(__name__)

_CHUNK: Final = 200


def late_s(settings: Settings) -> float:
    """Return how many seconds a lease must have been expired, and how often workers check.

    A living worker renews a lease three times in its duration.
    """
    return settings.lease_s / 3


class Returner(bootsteps.StartStopStep):  # type: ignore[misc]
    """Returns messages in a thread of its own; one worker of an app checks every `late_s`."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._stop = threading.Event()

    def start(self, consumer: Any) -> None:
        """Start the thread, if this worker looks for messages of dead workers."""
        yard: InstalledContext = consumer.app.taskyard
        if not yard.returns_abandoned:
            return
        self._stop = threading.Event()
        threading.Thread(
            target=_repeat, args=(yard, self._stop), name="taskyard-returner", daemon=True
        ).start()

    def stop(self, consumer: Any) -> None:
        """Tell the thread to end, and do not wait for it."""
        self._stop.set()


def _repeat(yard: InstalledContext, stop: threading.Event) -> None:
    every_s = late_s(yard.settings)
    while not stop.wait(every_s):
        try:
            return_abandoned(yard)
        except RedisError as error:
            log.warning(
                "this worker could not search for messages of dead workers; it tries again in "
                "%g s: %s",
                every_s,
                error,
                extra={"action": "abandoned_not_sought"},
            )


@dataclass(frozen=True, slots=True)
class _Out:
    """An unacknowledged message that kombu's transport took, and the queue of its publication."""

    tag: str
    stored: bytes
    message: dict[str, Any]
    exchange: str
    routing_key: str

    @property
    def headers(self) -> dict[str, Any]:
        found: dict[str, Any] = self.message["headers"]
        return found

    @property
    def job_id(self) -> str:
        return str(self.headers.get("id") or "")

    @property
    def priority(self) -> int:
        properties = self.message.get("properties")
        value = properties.get("priority") if isinstance(properties, dict) else None
        return value if isinstance(value, int) and value > 0 else 0


def return_abandoned(yard: InstalledContext) -> int:
    """Put the messages of dead workers back into their queues; return their number.

    Raises redis-py's errors. The number is 0 too if another worker has checked within the last
    seconds.
    """
    publisher = yard.publisher
    if not isinstance(publisher, RedisPublisher):
        return 0
    broker, layout = publisher.client, yard.layout
    turn = f"{yard.settings.namespace}:returning:{layout.unacked_key}"
    if not broker.set(turn, "1", nx=True, px=int(late_s(yard.settings) * 900)):
        return 0
    found = [
        out for out in _out(broker, layout) if yard.mode(named_task(out.headers)) is Mode.PROTECT
    ]
    return sum(_return(yard, layout, broker, out, record) for out, record in _left(yard, found))


def _out(broker: redis.Redis, layout: Layout) -> Iterator[_Out]:
    tags: Any = broker.zrange(layout.index_key, 0, -1)
    names = [tag.decode() for tag in tags]
    kombus = [name for name in names if not owner_of(name)]
    for start in range(0, len(kombus), _CHUNK):
        chunk = kombus[start : start + _CHUNK]
        stored: Any = broker.hmget(layout.unacked_key, chunk)
        for tag, raw in zip(chunk, stored, strict=True):
            message, *route = (None, "", "") if raw is None else stored_parts(raw)
            if isinstance(message, dict) and isinstance(message.get("headers"), dict):
                yield _Out(tag, raw, message, *route)


def _left(yard: InstalledContext, found: list[_Out]) -> Iterator[tuple[_Out, Record]]:
    """Return the messages that no worker runs, with their records."""
    if not found:
        return
    records = yard.watching
    now_us, members = Fleet(records.client, yard.settings.namespace).read()
    left = left_by_dead(members, now_us)
    late_us = now_us - us_of(late_s(yard.settings))
    for out in found:
        record = records.read(out.job_id)
        if record.state is not State.RUNNING:
            if out.tag in left:
                yield out, record
            continue
        worker, began_us = record.fields.get("worker", ""), record.number("started")
        late = record.number("lease_until") < late_us
        if late and not _is_stale(out, record) and not lives(members, worker, began_us, now_us):
            yield out, record


def _is_stale(out: _Out, record: Record) -> bool:
    """Return whether the message belongs to an earlier attempt than the running one."""
    try:
        stamp = Stamp.read(out.headers)
    except ValueError:
        return True
    at = (record.epoch, record.generation, record.number("seq"))
    return stamp is not None and (stamp.epoch, stamp.generation, stamp.seq) < at


def _queue(app: Any, out: _Out, record: Record) -> str:
    """Return the queue that a message came from; empty if that is unknown."""
    if not out.exchange:
        return out.routing_key
    if record.queue:
        return record.queue
    found = queue_named(app, out.exchange, out.routing_key, "")
    return found if found in app.amqp.queues else ""


def _return(
    yard: InstalledContext, layout: Layout, broker: redis.Redis, out: _Out, record: Record
) -> bool:
    queue = _queue(yard.app, out, record)
    if not queue:
        return False
    queue_list = layout.key(queue, layout.step(out.priority))
    keys = layout.unacked_key, layout.index_key
    back = give_back(broker, *keys, out.tag, out.stored, queue_list)
    if back:
        log.warning(
            "job %s: the worker that held its message is dead, so the message was returned to "
            "queue %s",
            out.job_id,
            queue,
            extra={"action": "message_restored", "job_id": out.job_id, "tag": out.tag},
        )
    return back
