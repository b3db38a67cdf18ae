"""`install(app)`: install Taskyard on an existing Celery app."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from celery import signals
from celery.utils.imports import symbol_by_name
from celery.worker.consumer import Consumer

from taskyard.engine.delay_promoter import Promoter
from taskyard.engine.heartbeat_writer import Presence
from taskyard.engine.hold_queues_bootstep import HoldQueues
from taskyard.engine.operator_credentials_bootstep import RefuseCredentials
from taskyard.engine.pool_process_memory import MemoryWatch
from taskyard.engine.stop_attempts import StopAttempts
from taskyard.errors import InvalidSettings
from taskyard.install.admit_on_publish import watch_publishing
from taskyard.install.adopt_task import adopt
from taskyard.install.app_broker import AppBroker
from taskyard.install.beat import watch_beat
from taskyard.install.fanout import fanout_target
from taskyard.install.installed_consumer import InstalledConsumer
from taskyard.install.installed_context import InstalledContext
from taskyard.install.modes import Mode, Modes
from taskyard.install.queue_announcer import Announcer
from taskyard.install.requeue_begun_jobs import Returner
from taskyard.install.transport_choice import choose_transport, own_options
from taskyard.settings import Settings, load
from taskyard.wire.redacted_logs import logger

__all__ = ["install"]

log = logger(__name__)

# Names, since a producer needs no pool. An app's own pool is kept.
_PREFORK: Final = ("prefork", "processes", "celery.concurrency.prefork:TaskPool")
_POOL: Final = "taskyard.engine.prefork_pool:InstalledTaskPool"


def install(
    app: Any,
    mode: str = "protect",
    *,
    tasks: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    transport: bool | None = None,
    admit: bool = False,
) -> Any:
    """Install Taskyard on an existing Celery app, in its workers, producers and beat.

    `mode` is "observe" (events and letters, nothing else changes), "protect" (leases, no double
    runs, a letter before every lost acknowledgement) or "off"; `tasks` sets it by name pattern,
    and a task's own attribute `taskyard` wins. Settings come from `TASKYARD_*` and
    `taskyard.toml` unless given. The app keeps its broker, backend and queues. A Redis broker is
    consumed by `taskyard.transport` where `mode` or `tasks` protect; `transport=False` keeps
    kombu's, `True` has ours where nothing is protected too. `admit=True` gives each protected task
    that this process publishes its record at once, not only when a worker begins it; only where
    every worker of its queue protects, since no other would end that record.

    Connects to nothing and starts nothing. Returns the app. Raises `MissingSetting` without
    TASKYARD_REDIS_URL, `InvalidSettings` for an unknown mode or a second installation; when the
    app reads its configuration, `InvalidSettings` for `transport=True` where ours cannot read.
    """
    if hasattr(app, "taskyard"):
        raise InvalidSettings(
            f"Taskyard is already installed on {app!r}: call install once, where the app is created"
        )
    given = load().settings if settings is None else settings
    given.need_redis_url()
    yard = InstalledContext(app, given, Modes.read(mode, tasks))
    app.taskyard = yard
    _adopt_tasks(app, yard)
    _configure(app, transport)
    app.steps["consumer"].update(
        (Promoter, Announcer, MemoryWatch, Returner, StopAttempts, HoldQueues)
    )
    app.steps["worker"].update((Presence, RefuseCredentials))
    watch_beat(yard)
    keep_expired(app, yard)
    if admit:
        watch_publishing(app, yard)
    signals.worker_shutdown.connect(
        lambda **_: yard.close(), weak=False, dispatch_uid=f"taskyard-close-{id(app)}"
    )
    return app


def _adopt_tasks(app: Any, yard: InstalledContext) -> None:
    """Adopt the tasks that exist when the app is finalized, and each later one."""

    def adopt_all(**_: Any) -> None:
        for task in list(app._tasks.values()):
            adopt(task, yard)

    app.on_after_finalize.connect(adopt_all, weak=False)
    watch_registry(app, yard)
    if app.finalized:
        adopt_all()


def _configure(app: Any, asked: bool | None) -> None:
    """Set what the app's configuration must contain, whenever the configuration is read."""

    def configure(**_: Any) -> None:
        app.conf.worker_consumer = _consumer(app.conf.worker_consumer)
        if app.conf.worker_pool in _PREFORK:
            app.conf.worker_pool = _POOL
        _use_transport(app, asked)

    app.on_after_configure.connect(configure, weak=False)
    if app.configured:
        configure()


def _consumer(own: Any) -> type:
    cls: type = symbol_by_name(own)
    if cls is Consumer:
        return InstalledConsumer
    if issubclass(cls, InstalledConsumer):
        return cls
    return type(cls.__name__, (InstalledConsumer, cls), {"__module__": cls.__module__})


def _use_transport(app: Any, asked: bool | None) -> None:
    yard: InstalledContext = app.taskyard
    broker = AppBroker(app)
    yard.transport = choose_transport(broker, yard.modes, asked)
    if yard.transport.own is None:
        return
    app.conf.broker_transport = yard.transport.own
    if broker.tls is not None:
        # kombu knows from the scheme alone that rediss:// is TLS, unless a transport is named.
        app.conf.broker_use_ssl = broker.tls
    own = app.conf.broker_transport_options or {}
    app.conf.broker_transport_options = own_options(yard.given.namespace, own)


# Celery gives RabbitMQ the time too, as a property of the message, and RabbitMQ drops it from its
# queue by that. No worker sees it then: no outcome, and no letter unless the queue's own arguments
# lead to the dead-letter exchange. The header that says the same to workers stays.
def keep_expired(app: Any, yard: InstalledContext) -> None:
    """Make workers end expired messages instead of the broker; observed tasks are not changed."""

    def keep(
        sender: str = "",
        headers: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        expires = (headers or {}).get("expires") is not None
        protected = yard.mode(sender) is Mode.PROTECT and not fanout_target(app, options)
        if expires and properties and protected:
            properties.pop("expiration", None)

    signals.before_task_publish.connect(keep, weak=False, dispatch_uid=f"taskyard-expiry-{id(app)}")


# The registry gets every new task. Code between the decorator and Celery would work too, but then a
# warning of Celery's about the task would point at us, not at the app's own line.
def watch_registry(app: Any, yard: InstalledContext) -> None:
    """Adopt tasks that are registered after the app is finalized."""
    cls = type(app._tasks)

    def register(registry: Any, name: str, task: Any) -> None:
        cls.__setitem__(registry, name, task)
        if app.finalized:
            _adopt_when_bound(task, yard)

    app._tasks.__class__ = type(
        cls.__name__, (cls,), {"__module__": cls.__module__, "__setitem__": register}
    )


def _adopt_when_bound(task: Any, yard: InstalledContext) -> None:
    """Adopt a task after its `bind`, because only then the task has its options."""

    def bind(app: Any) -> Any:
        del task.bind
        bound = task.bind(app)
        adopt(task, yard)
        return bound

    task.bind = bind
