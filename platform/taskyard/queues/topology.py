"""The work queues as Celery sees them, and where a job type goes."""

from __future__ import annotations

from kombu import Exchange, Queue

from taskyard.jobs import Catalogue
from taskyard.queues.priorities import broker_priority
from taskyard.settings import Settings

__all__ = ["kombu_queues", "route"]


def kombu_queues(settings: Settings) -> list[Queue]:
    """One durable queue for each configured one, on the default exchange."""
    names = [settings.broker_name(name) for name in settings.queues]
    return [Queue(name, Exchange(""), routing_key=name, durable=True) for name in names]


def route(settings: Settings, catalogue: Catalogue, task: str) -> dict[str, object] | None:
    """Celery's route of a task published without a queue; None where it is no job type."""
    if task not in catalogue:
        return None
    job_type = catalogue[task]
    queue = settings.queue(job_type.queue)
    priority = queue.default_priority if job_type.priority is None else job_type.priority
    return {
        "queue": settings.broker_name(job_type.queue),
        "priority": broker_priority(queue, priority),
    }
