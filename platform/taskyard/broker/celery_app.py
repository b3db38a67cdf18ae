"""The Celery app that clients and workers share."""

from __future__ import annotations

from typing import Any, Final

from celery import Celery
from celery.app.amqp import AMQP

from taskyard.broker.connection import (
    BrokerConnection,
    check_broker_url,
    is_amqp,
    transport_options,
    wiring,
)
from taskyard.jobs import Catalogue
from taskyard.queues import kombu_queues, route
from taskyard.records import Keys
from taskyard.settings import Settings

__all__ = ["Amqp", "make_app"]

_BACKEND: Final = "taskyard.backend:RecordBackend"


class Amqp(AMQP):  # type: ignore[misc]
    """Celery's AMQP, whose connections check each host's certificate for that host."""

    Connection = BrokerConnection


def make_app(
    settings: Settings,
    catalogue: Catalogue,
    name: str = "taskyard",
    amqp: type[Amqp] = Amqp,
) -> Celery:
    """Return a Celery app configured from the settings; it connects later. Raises `MissingSetting`.

    JSON only: a message of another content type becomes a dead letter, and is never executed.
    """
    app = Celery(name, set_as_current=False, amqp=amqp)
    prefix = Keys(settings.namespace).prefix
    broker = wiring(check_broker_url(settings))
    records = settings.need_redis_url()
    app.conf.update(
        broker_url=broker.url,
        broker_transport=broker.transport,
        broker_use_ssl=broker.ssl or False,
        broker_transport_options={**transport_options(settings), **broker.options},
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # RabbitMQ closes a channel that held a message too long; without this setting the worker
        # ends.
        broker_channel_error_retry=True,
        result_backend=f"{_BACKEND}+{records}",
        result_backend_transport_options={"global_keyprefix": prefix},
        result_expires=settings.result_ttl_s,
        result_serializer="json",
        task_serializer="json",
        accept_content=["json"],
        task_queues=kombu_queues(settings, rabbit=is_amqp(settings)),
        task_default_queue=settings.broker_name("exec"),
        task_default_exchange="",
        task_default_routing_key=settings.broker_name("exec"),
        task_create_missing_queues=True,
        # Control commands reach every worker on the exchange: each namespace has its own.
        control_exchange=settings.broker_name("celery"),
        event_exchange=settings.broker_name("celeryev"),
        event_queue_prefix=settings.broker_name("celeryev"),
        task_routes=[_router(settings, catalogue)],
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_track_started=False,
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        worker_hijack_root_logger=True,
    )
    return app


def _router(settings: Settings, catalogue: Catalogue) -> Any:
    rabbit = is_amqp(settings)

    def router(name: str, *_: object, **__: object) -> dict[str, object] | None:
        return route(settings, catalogue, name, rabbit=rabbit)

    return router
