"""Observe messages of a fanout exchange: each bound queue gets a copy, and all copies run.

The copies share one id. If they were protected, the first would run and the others would end as its
duplicates. So Taskyard only observes a copy, as a job of its own in records, history and dead
letters: `<id>@<copy>`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from celery.utils.imports import symbol_by_name

from taskyard.install.attribute_names import AS_BEFORE

__all__ = [
    "Copies",
    "Copy",
    "copy_id",
    "fanout_exchange",
    "fanout_route",
    "fanout_target",
    "is_bound_to_fanout",
    "is_fanout",
    "leads_to_fanout",
]

_LONGEST_ID: Final = 255
_COPIES: Final = uuid.UUID("3d0f3a52-6b0e-5c1c-9d0a-0f6b1f0e7c14")


def fanout_exchange(app: Any, message: Any, queue: str) -> str | None:
    """Return the fanout exchange through which a message came to `queue`; None for another route.

    A message published to the queue itself, by the default exchange, is for one worker.
    """
    came_by = str((message.delivery_info or {}).get("exchange") or "")
    if not came_by:
        return None
    if is_fanout(app, came_by):
        return came_by
    read = app.amqp.queues.get(queue)
    # The message may come from another exchange, which is bound to the queue's fanout exchange.
    return str(read.exchange.name) if read is not None and is_bound_to_fanout(read) else None


def is_bound_to_fanout(queue: Any) -> bool:
    """Return whether a kombu queue is bound to a fanout exchange, as `Broadcast` is."""
    return queue.exchange is not None and queue.exchange.type == "fanout"


def leads_to_fanout(queue: Any) -> bool:
    """Return whether any binding of a kombu queue leads to an exchange of the type fanout."""
    bound = [queue.exchange, *(each.exchange for each in queue.bindings or ())]
    return any(each is not None and each.type == "fanout" for each in bound)


def fanout_route(task: Any) -> str | None:
    """Return the fanout exchange to which a task's route leads, unless a caller says otherwise.

    Raises what a router of the app raises.
    """
    options = task.app.amqp.router.route(dict(task._get_exec_options()), task.name)
    return fanout_target(task.app, options)


def fanout_target(app: Any, options: Mapping[str, Any]) -> str | None:
    """Return the fanout exchange for a message with these options; None for any other exchange."""
    exchange, queue = options.get("exchange"), options.get("queue")
    if exchange is None and queue is not None:
        found = app.amqp.queues.get(queue) if isinstance(queue, str) else queue
        found = found or app.amqp.queues.aliases.get(queue)
        return str(found.exchange.name) if found and is_bound_to_fanout(found) else None
    name = str(getattr(exchange, "name", exchange) or "")
    return name if name and is_fanout(app, name) else None


def is_fanout(app: Any, exchange: str) -> bool:
    """Return whether a queue of the app is bound to a fanout exchange of this name."""
    for queue in app.amqp.queues.values():
        bound = [queue.exchange, *(each.exchange for each in queue.bindings or ())]
        if any(each and each.name == exchange and each.type == "fanout" for each in bound):
            return True
    return False


@dataclass(frozen=True, slots=True)
class Copy:
    """One worker's copy of a message to a fanout exchange.

    `exchange` had the message, `name` distinguishes the copy from the others.
    """

    exchange: str
    name: str


def copy_id(job_id: str, copy: Copy) -> str:
    """Return the id of the record that a copy has for itself."""
    name = f"{job_id}@{copy.name}"
    return name if len(name) <= _LONGEST_ID else str(uuid.uuid5(_COPIES, name))


class Copies(dict[str, Any]):
    """Celery's handlers for copies, by task name: a protected task is only observed there."""

    def __init__(self, app: Any, consumer: Any) -> None:
        super().__init__()
        self._app, self._consumer = app, consumer

    def __missing__(self, name: str) -> Any:
        task = self._app.tasks[name]
        strategy = symbol_by_name(task.Strategy)(_AsBefore(task), self._app, self._consumer)
        self[name] = strategy
        return strategy


class _AsBefore:
    """A protected task, seen by Celery as if it were only observed.

    It has the request class and the acknowledgements of an observed task.
    """

    def __init__(self, task: Any) -> None:
        self._task = task
        self.__dict__.update(getattr(task, AS_BEFORE))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)
