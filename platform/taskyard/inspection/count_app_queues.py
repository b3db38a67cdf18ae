"""The queues of installed Celery apps: no setting names them, so their workers announce them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from taskyard.broker import connection, is_amqp, own_layout
from taskyard.broker.connection import check_broker_url
from taskyard.clock import from_us
from taskyard.inspection.queue_counts import QueueState, away, declared, heartbeats, length
from taskyard.install.announced_queues import RABBIT, AnnouncedQueue, AnnouncedQueues, find_mark
from taskyard.settings import Settings
from taskyard.store import BROKER, connect, reachable

__all__ = ["look_at_apps"]


def look_at_apps(settings: Settings, names: Iterable[str] | None = None) -> list[QueueState]:
    """Return the state of the announced queues, only of those called `names` if given.

    Queues at another broker than `TASKYARD_BROKER_URL` cannot be counted from here. Raises
    `MissingSetting`, `ServerUnreachable`, `ServerRefused`.
    """
    url = settings.need_redis_url()
    with connect(url, retries=0) as client, reachable(url):
        places = AnnouncedQueues(client, settings.namespace).all()
    wanted = None if names is None else set(names)
    by_queue: dict[str, list[AnnouncedQueue]] = {}
    for place in places:
        if not _is_ours(settings, place) and (wanted is None or place.queue in wanted):
            by_queue.setdefault(place.queue, []).append(place)
    if not by_queue:
        return []
    return (_rabbitmq if is_amqp(settings) else _redis)(settings, list(by_queue.values()))


def _is_ours(settings: Settings, place: AnnouncedQueue) -> bool:
    """Return whether the settings have this queue, under the keys that Taskyard's workers read."""
    names = {settings.broker_name(name) for name in settings.queues}
    return place.queue in names and place.layout == own_layout(settings)


def _redis(settings: Settings, found: Sequence[Sequence[AnnouncedQueue]]) -> list[QueueState]:
    url = check_broker_url(settings)
    with connect(url, retries=0, variable=BROKER) as client, reachable(url, variable=BROKER):
        mark = find_mark(client, settings.namespace)
        prefixes = {place.layout.prefix for places in found for place in places}
        counts = {prefix: heartbeats(client, settings.namespace, prefix) for prefix in prefixes}
        states = []
        for places in found:
            sizes = [
                length(client, place.layout.keys(place.queue)) if place.mark == mark else None
                for place in places
            ]
            # A worker with kombu's own transport has no heartbeat here, so 0 heartbeats prove
            # nothing.
            name = places[0].queue
            consumers = sum(counts[prefix][name] for prefix in {at.layout.prefix for at in places})
            states.append(_state(places, sizes, consumers or None))
    return states


def _rabbitmq(settings: Settings, found: Sequence[Sequence[AnnouncedQueue]]) -> list[QueueState]:
    states = []
    with connection(settings) as broker:
        try:
            broker.connect()
            for places in found:
                here = any(place.mark == RABBIT for place in places)
                waiting, consumers = declared(broker, places[0].queue) if here else (None, None)
                states.append(_state(places, [waiting], consumers))
        except broker.connection_errors as error:
            raise away(settings, error) from error
    return states


def _state(
    places: Sequence[AnnouncedQueue], sizes: Sequence[int | None], consumers: int | None
) -> QueueState:
    """Return one row for a queue; for a queue under several keys, the row has the sum."""
    known = [size for size in sizes if size is not None]
    waiting = sum(known) if len(known) == len(sizes) else None
    told_at = from_us(max(place.seen_us for place in places))
    return QueueState(places[0].queue, waiting, consumers, app=True, told_at=told_at)
