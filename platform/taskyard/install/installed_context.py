"""What the parts of an installed app's processes share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final

from kombu import Connection

from taskyard.broker import AmqpPublisher, Layout, Publisher, connection, is_amqp
from taskyard.deadletters import LetterBox
from taskyard.engine.message import broker_queue
from taskyard.engine.worker_context import WorkerContext
from taskyard.install.app_broker import AppBroker
from taskyard.install.broker_choice import app_settings, goes_by_own, why_unsupported
from taskyard.install.marks import MODE
from taskyard.install.modes import Mode, Modes
from taskyard.install.observer import Observer
from taskyard.install.publisher import AppRedisPublisher
from taskyard.install.rules import OwnRetries
from taskyard.install.runner import TaskRunner
from taskyard.install.task_mode import TaskMode, judge_task
from taskyard.install.transport_choice import TransportChoice
from taskyard.jobs import Catalogue
from taskyard.records import Keys, Record, Records
from taskyard.settings import Settings
from taskyard.store import TRIES, connect

__all__ = ["InstalledContext"]

_NEVER: Final = 10**9
_WATCH_S: Final = 5.0


class InstalledContext(WorkerContext):
    """Connections and rules; the app's configuration is read when something is first used."""

    def __init__(self, app: Any, given: Settings, modes: Modes) -> None:
        self.app, self.given, self.modes = app, given, modes
        self.task_modes: dict[str, TaskMode] = {}
        # Chosen when the app's configuration is read.
        self.transport = TransportChoice()
        self.catalogue = Catalogue({})
        self.rules = OwnRetries.make()

    @cached_property
    def broker(self) -> AppBroker:
        """The app's broker, as its configuration has it."""
        return AppBroker(self.app)

    @cached_property
    def settings(self) -> Settings:  # type: ignore[override]
        """The given settings, on the app's broker."""
        return app_settings(self.broker, self.given)

    @cached_property
    def broker_supported(self) -> bool:
        """Whether retries and waiting messages have a place at the app's broker."""
        return why_unsupported(self.broker, self.given) is None

    @property
    def returns_abandoned(self) -> bool:
        """Where it protects at a Redis broker: only its own kind of message is safe to repeat."""
        return self.broker_supported and self.broker.kind == "redis" and self.modes.protect

    def connect(self, keyprefix: str | None = None) -> Connection:
        """A connection for what Taskyard itself publishes; `keyprefix` as in `connection`."""
        if goes_by_own(self.broker):
            return self.broker.connect(self.settings, keyprefix)
        return connection(self.settings, keyprefix)

    @cached_property
    def records(self) -> Records:
        """The records, of this process; none waits for replicas, which are a client's matter.

        A worker's main loop admits here, and must not block while a replica does not answer.
        """
        return self._records({"replicas": 0})

    @cached_property
    def task_runner(self) -> TaskRunner:
        """The attempt of a task that knows nothing of Taskyard, in a child."""
        return TaskRunner(self.steps)

    @cached_property
    def watching(self) -> Records:
        """Records that count no death of a watched task: only what protects may dead-letter.

        A short lease, since another worker may protect, and wait for what has ended unseen.
        """
        lease_s = min(self.settings.lease_s, _WATCH_S)
        return self._records({"death_limit": _NEVER, "lease_s": lease_s, "replicas": 0})

    def _records(self, own: Mapping[str, Any]) -> Records:
        settings = self.settings.model_copy(update=own)
        keys = AppKeys(settings.namespace)
        return Records(connect(settings.need_redis_url()), settings, keys)

    @cached_property
    def watched_letters(self) -> LetterBox:
        """Letters of watched tasks, on a connection that protected ones do not wait for."""
        return self._letter_box()

    def _letter_box(self) -> LetterBox:
        """Under the app's own `global_keyprefix` where it has one: it may be confined to it."""
        prefix = self.layout.prefix if self.broker_supported else ""
        return LetterBox(self.settings, partial(self.connect, prefix or None), prefix or None)

    @cached_property
    def layout(self) -> Layout:
        """The names of the app's keys, where its broker is Redis."""
        return Layout.of(dict(self.app.conf.broker_transport_options or {}))

    def task_mode_of(self, task: Any) -> TaskMode:
        """What becomes of a bound task."""
        return judge_task(task, self.modes, why_unsupported(self.broker, self.given))

    def mode(self, name: str) -> Mode:
        """The mode of a task by name, also of a task that does not exist."""
        task = self.app.tasks.get(name)
        if task is None:
            return self.modes.of(name)
        adopted: Mode | None = getattr(task, MODE, None)
        return self.task_mode_of(task).mode if adopted is None else adopted

    @cached_property
    def observer(self) -> Observer:
        """Events and letters of tasks that are only watched."""
        return Observer(self)

    @cached_property
    def publisher(self) -> Publisher:
        """Retries and waiting messages, in the main process."""
        if is_amqp(self.settings):
            return AmqpPublisher(self.settings, self.records.now_us, self.connect)
        if not goes_by_own(self.broker):
            return AppRedisPublisher(self.settings, layout=self.layout)
        timeout_s = self.settings.publish_timeout_s / TRIES
        client = connect(self.broker.redis(), timeout_s=timeout_s)
        return AppRedisPublisher(self.settings, client, self.layout)

    def close(self) -> None:
        """At the worker's end: what was observed is written."""
        if "observer" in self.__dict__:
            self.observer.close()

    def source(self, message: Any) -> str:
        """The broker's name of the queue that a message came from."""
        return broker_queue(message) or ""

    def home(self, record: Record, message: Any) -> str:
        """Where a job's next message belongs: where this one was."""
        return self.source(message) or record.queue


@dataclass(frozen=True, slots=True)
class AppKeys(Keys):
    """As `Keys`, with results in the namespace."""

    def result(self, job_id: str) -> str:
        """What the record keeps for a continuation that must be repeated."""
        return self.kept_result(job_id)
