"""Build Celery's list of work queues, and its route for each job type."""

from __future__ import annotations

from kombu import Exchange, Queue

from taskyard.jobs import Catalogue
from taskyard.queues.priorities import broker_priority, rabbit_priority
from taskyard.queues.rabbit_queue import QueueOptions, RabbitQueue
from taskyard.settings import Settings

__all__ = ["kombu_queues", "rabbit_queues", "route"]


def kombu_queues(settings: Settings, *, rabbit: bool) -> list[Queue]:
    """Return one durable queue on the default exchange for each queue in the settings."""
    if rabbit:
        return list(rabbit_queues(settings))
    names = [settings.broker_name(name) for name in settings.queues]
    return [Queue(name, Exchange(""), routing_key=name, durable=True) for name in names]


def rabbit_queues(settings: Settings) -> list[RabbitQueue]:
    """Return one RabbitMQ queue for each queue in the settings.

    Messages that the broker itself drops go to the dead-letter exchange.
    """
    found = []
    for queue in settings.queues:
        name = settings.broker_name(queue)
        dead_letter = (f"{settings.namespace}.dead-letter", f"{name}.broker.rejected")
        options = QueueOptions(settings.rabbitmq_queue_type, dead_letter, priorities=True)
        found.append(RabbitQueue.of_options(name, options, Exchange(""), name))
    return found


def route(
    settings: Settings, catalogue: Catalogue, task: str, *, rabbit: bool
) -> dict[str, object] | None:
    """Return Celery's route for a task that is published without a queue.

    None if the task is not a job type.
    """
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
