"""Build the worker's Celery app from settings, catalogue and handlers."""

from __future__ import annotations

import gc

from celery import Celery, signals

from taskyard.broker import make_app
from taskyard.engine.consumer import JobConsumer
from taskyard.engine.delay_promoter import Promoter
from taskyard.engine.heartbeat_writer import Presence
from taskyard.engine.hold_queues_bootstep import HoldQueues
from taskyard.engine.pool_process_memory import MemoryWatch
from taskyard.engine.prefork_pool import TaskPool
from taskyard.engine.return_over_prefetch import OverPrefetch
from taskyard.engine.stop_attempts import StopAttempts
from taskyard.engine.task import make_task
from taskyard.engine.worker_context import WorkerContext
from taskyard.errors import UnknownJobType
from taskyard.install.native_celery_tasks import protect_celery_tasks
from taskyard.jobs import Catalogue
from taskyard.jobs.handler_registry import Registry
from taskyard.settings import Settings
from taskyard.workers.logs import mask_secrets
from taskyard.workers.sign_operator_tasks import SigningAmqp, SignsNothing

__all__ = ["build_app"]


def build_app(settings: Settings, catalogue: Catalogue, handlers: Registry) -> Celery:
    """Return the app of `taskyard worker`; raises `UnknownJobType`, or `UnknownQueue` of a type.

    A decorator's values are defaults; a job type file, which clients read too, overrides them.
    """
    catalogue = handlers.under(catalogue)
    for job_type in catalogue.values():
        settings.queue(job_type.queue)
    for handler in handlers.handlers():
        if handler.name not in catalogue:
            raise UnknownJobType(
                f"the handler {handler.function.__qualname__} names job type {handler.name!r}, "
                "which no job type file defines; define it, or give the decorator a queue"
            )
    app = make_app(settings, catalogue, amqp=SigningAmqp)
    app.taskyard = WorkerContext(settings, catalogue)
    app.conf.worker_consumer = f"{JobConsumer.__module__}:{JobConsumer.__qualname__}"
    app.conf.worker_pool = f"{TaskPool.__module__}:{TaskPool.__qualname__}"
    app.steps["consumer"].update((Promoter, OverPrefetch, MemoryWatch, StopAttempts, HoldQueues))
    app.steps["worker"].update((Presence, SignsNothing))
    keep_pages_shared()
    mask_secrets()
    for handler in handlers.handlers():
        make_task(app, app.taskyard, handler)
    protect_celery_tasks(app, app.taskyard)
    return app


def keep_pages_shared() -> None:
    """Before the first fork of a pool, exempt all live objects from garbage collection.

    A collection writes into every object that it examines, so each child would soon copy every page
    of the modules that it inherited; here that was a fifth of a worker's memory.
    """
    signals.worker_before_create_process.connect(
        _freeze, weak=False, dispatch_uid="taskyard.workers.build"
    )


def _freeze(**_: object) -> None:
    # Only once: when a later child replaces another, the live objects are those of current work.
    if gc.get_freeze_count() == 0:
        gc.collect()
        gc.freeze()
