"""Every key of a Redis broker that may hold messages of Taskyard or of installed apps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import redis

from taskyard.broker import PLAIN, Layout, own_layout
from taskyard.deadletters import mirror_queue
from taskyard.inspection.next_queue import SUCCESSOR
from taskyard.install.announced_queues import AnnouncedQueue, AnnouncedQueues, find_mark
from taskyard.records import Records
from taskyard.settings import Settings

__all__ = ["MessageLocations", "survey"]


@dataclass(frozen=True, slots=True)
class MessageLocations:
    """The keys to search for messages: `lists` of queues, `held` by workers, and `delayed`.

    `known` queues are those whose keys are known. `held` are pairs of keys: the unacknowledged
    messages, and the times when they were taken. `used` are the keys of unacknowledged messages
    that workers of this namespace use. `elsewhere` are queues of installed apps at
    another broker. `layouts` are all known layouts; for a queue, the layouts under its name come
    first.
    """

    lists: tuple[str, ...]
    held: tuple[tuple[str, str], ...]
    used: frozenset[str]
    delayed: str
    known: frozenset[str]
    elsewhere: frozenset[str]
    layouts: tuple[tuple[str, Layout], ...] = ()

    def layout(self, unacked: str, queue: str) -> Layout | None:
        """Return how workers with messages under this key read `queue`; None if no worker said."""
        fitting = [(name, one) for name, one in self.layouts if one.unacked_key == unacked]
        own = [layout for name, layout in fitting if name == queue]
        return next(iter(own or [layout for _, layout in fitting]), None)

    def why_unseen(self, queue: str) -> str | None:
        """Return why a job whose message belongs there cannot be judged; None if it can."""
        if queue == SUCCESSOR:
            return "replaced tasks: their jobs continue after the tasks that replace them"
        if queue in self.elsewhere:
            return f"queue {queue!r} is at another broker than TASKYARD_BROKER_URL"
        if queue not in self.known:
            name = repr(queue) if queue else "without a name"
            return (
                f"queue {name}: neither the settings nor a worker of an installed app names it, "
                f"so its messages may be in keys that were not searched"
            )
        return None


def survey(
    settings: Settings, records: Records, broker: redis.Redis, queues: Iterable[str]
) -> MessageLocations:
    """Return where to search.

    `queues` that no worker has named are searched in every known layout.
    """
    places = AnnouncedQueues(records.client, settings.namespace).all()
    mark = find_mark(broker, settings.namespace)
    here = [place for place in places if place.mark == mark]
    own = own_layout(settings)
    used = {own} | {place.layout for place in here}
    layouts = {PLAIN} | used
    named = {place.queue for place in here}
    names = named | {settings.broker_name(name) for name in settings.queues}
    names |= {_name(settings, queue) for queue in queues} - {"", SUCCESSOR}
    lists = {key for layout in layouts for name in names for key in layout.keys(name)}
    lists |= {layout.key(mirror_queue(settings).name, 0) for layout in layouts}
    return MessageLocations(
        lists=tuple(sorted(lists)),
        held=tuple(sorted({(layout.unacked_key, layout.index_key) for layout in layouts})),
        used=frozenset(layout.unacked_key for layout in used),
        delayed=f"{settings.namespace}:delayed:messages",
        known=frozenset(settings.queues) | named,
        elsewhere=frozenset(_elsewhere(places, mark) - named - set(settings.queues)),
        layouts=(*((place.queue, place.layout) for place in here), ("", own), ("", PLAIN)),
    )


def _elsewhere(places: Iterable[AnnouncedQueue], mark: str) -> set[str]:
    return {place.queue for place in places if place.mark != mark}


def _name(settings: Settings, queue: str) -> str:
    return settings.broker_name(queue) if queue in settings.queues else queue
