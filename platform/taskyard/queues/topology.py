"""The work queues for Celery, and the route of a job type."""

from __future__ import annotations

from kombu import Exchange, Queue

from taskyard.jobs import Catalogue
from taskyard.queues.priorities import broker_priority, rabbit_priority
from taskyard.queues.rabbit_queue import RabbitQueue, Wish
from taskyard.settings import Settings

__all__ = ["kombu_queues", "rabbit_queues", "route"]


def kombu_queues(settings: Settings, *, rabbit: bool) -> list[Queue]:
    """Return one durable queue for each configured one, on the default exchange."""
    if rabbit:
        return list(rabbit_queues(settings))
    names = [settings.broker_name(name) for name in settings.queues]
    return [Queue(name, Exchange(""), routing_key=name, durable=True) for name in names]


def rabbit_queues(settings: Settings) -> list[RabbitQueue]:
    """Return the same for RabbitMQ.

    What the broker itself drops goes to the dead-letter exchange too.
    """
    found = []
    for queue in settings.queues:
        name = settings.broker_name(queue)
        dead_letter = (f"{settings.namespace}.dead-letter", f"{name}.broker.rejected")
        wish = Wish(settings.rabbitmq_queue_type, dead_letter, priorities=True)
        found.append(RabbitQueue.wished(name, wish, Exchange(""), name))
    return found


def route(
    settings: Settings, catalogue: Catalogue, task: str, *, rabbit: bool
) -> dict[str, object] | None:
    """Return Celery's route of a task published without a queue; None if it is not a job type."""
    if task not in catalogue:
        return None
    job_type = catalogue[task]
    queue = settings.queue(job_type.queue)
    priority = queue.default_priority if job_type.priority is None else job_type.priority
    scale = rabbit_priority if rabbit else broker_priority
    return {
        "queue": settings.broker_name(job_type.queue),
        "priority": scale(queue, priority),
    }
