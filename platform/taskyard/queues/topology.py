"""The work queues as Celery sees them, and where a job type goes."""

from __future__ import annotations

from kombu import Exchange, Queue

from taskyard.jobs import Catalogue
from taskyard.queues.priorities import URGENCY_STEPS, broker_priority, rabbit_priority
from taskyard.settings import Settings

__all__ = ["kombu_queues", "rabbit_arguments", "route"]


def kombu_queues(settings: Settings, *, rabbit: bool) -> list[Queue]:
    """One durable queue for each configured one, on the default exchange.

    On RabbitMQ classic queues with four priorities: quorum queues have none before 4.0. What that
    broker itself drops goes to the dead-letter exchange too.
    """
    names = [settings.broker_name(name) for name in settings.queues]
    return [
        Queue(
            name,
            Exchange(""),
            routing_key=name,
            durable=True,
            queue_arguments=rabbit_arguments(settings, name) if rabbit else None,
        )
        for name in names
    ]


def rabbit_arguments(settings: Settings, name: str) -> dict[str, object]:
    """The arguments of a work queue on RabbitMQ."""
    return {
        "x-max-priority": len(URGENCY_STEPS),
        "x-dead-letter-exchange": f"{settings.namespace}.dead-letter",
        "x-dead-letter-routing-key": f"{name}.broker.rejected",
    }


def route(
    settings: Settings, catalogue: Catalogue, task: str, *, rabbit: bool
) -> dict[str, object] | None:
    """Celery's route of a task published without a queue; None where it is no job type."""
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
