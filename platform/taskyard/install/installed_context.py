"""The connections and rules that all parts of an installed app's processes share."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final

from kombu import Connection

from taskyard.broker import AmqpPublisher, Layout, ParkingPublisher, connection, is_amqp
from taskyard.deadletters import LetterBox
from taskyard.engine.read_message import broker_queue
from taskyard.engine.worker_context import WorkerContext
from taskyard.install.app_broker import AppBroker
from taskyard.install.app_redis_publisher import AppRedisPublisher
from taskyard.install.attribute_names import MODE
from taskyard.install.effective_mode import TaskMode, judge_task
from taskyard.install.modes import Mode, Modes
from taskyard.install.observer import Observer
from taskyard.install.publication_broker import app_settings, goes_by_own, why_unsupported
from taskyard.install.retry_rules import OwnRetries
from taskyard.install.task_attempt_pipeline import TaskRunner
from taskyard.install.transport_choice import TransportChoice
from taskyard.jobs import Catalogue
from taskyard.records import Keys, Record, Records
from taskyard.settings import Settings
from taskyard.store import TRIES, connect

__all__ = ["InstalledContext"]

_NEVER: Final = 10**9
_WATCH_S: Final = 5.0


class InstalledContext(WorkerContext):
    """The connections and rules of an installed app; its configuration is read at first use."""

    def __init__(self, app: Any, given: Settings, modes: Modes) -> None:
        self.app, self.given, self.modes = app, given, modes
        self.task_modes: dict[str, TaskMode] = {}
        # Chosen when the app's configuration is read.
        self.transport = TransportChoice()
        self.catalogue = Catalogue({})
        self.rules = OwnRetries.make()
        self.stops = deque()

    @cached_property
    def broker(self) -> AppBroker:
        """Return the app's broker, as the app's configuration names it."""
        return AppBroker(self.app)

    @cached_property
    def settings(self) -> Settings:  # type: ignore[override]
        """Return the given settings, changed for the app's broker."""
        return app_settings(self.broker, self.given)

    @cached_property
    def broker_supported(self) -> bool:
        """Return whether the app's broker can hold retries and delayed messages."""
        return why_unsupported(self.broker, self.given) is None

    @property
    def returns_abandoned(self) -> bool:
        """Return whether this app's workers put messages of dead workers back into their queues.

        They do if tasks are protected at a Redis broker, because only messages of protected
        jobs are safe to repeat.
        """
        return self.broker_supported and self.broker.kind == "redis" and self.modes.protect

    @property
    def only_jobs(self) -> bool:
        """Return False: an app may have tasks that are only observed, or not even that."""
        return False

    @property
    def has_jobs(self) -> bool:
        """Return whether some task of the app is protected."""
        return any(task.mode is Mode.PROTECT for task in self.task_modes.values())

    def owns(self, job_type: str) -> bool:
        """Return whether a task is protected; an unknown one may be."""
        return self.has_jobs if not job_type else self.mode(job_type) is Mode.PROTECT

    def connect(self, keyprefix: str | None = None) -> Connection:
        """Return a connection for Taskyard's publications; `keyprefix` is as in `connection`."""
        if goes_by_own(self.broker):
            return self.broker.connect(self.settings, keyprefix)
        return connection(self.settings, keyprefix)

    @cached_property
    def records(self) -> Records:
        """Return the job records for this process; they never wait for replicas, as clients do.

        A worker's main loop admits jobs by them, and must not block while a replica does
        not answer.
        """
        return self._records({"replicas": 0})

    @cached_property
    def task_runner(self) -> TaskRunner:
        """Return the runner for tasks that do not know Taskyard, in a child process."""
        return TaskRunner(self.steps)

    @cached_property
    def watching(self) -> Records:
        """Return the records of observed tasks, with a limit of deaths that is never reached.

        Only protected jobs may be dead-lettered by a count. The lease is short, because
        another worker may protect the task and wait for the end of this lease.
        """
        lease_s = min(self.settings.lease_s, _WATCH_S)
        return self._records({"death_limit": _NEVER, "lease_s": lease_s, "replicas": 0})

    def _records(self, own: Mapping[str, Any]) -> Records:
        settings = self.settings.model_copy(update=own)
        keys = AppKeys(settings.namespace)
        return Records(connect(settings.need_redis_url()), settings, keys)

    @cached_property
    def watched_letters(self) -> LetterBox:
        """Return the publisher of dead letters of observed tasks.

        It has a separate connection, because dead letters of protected tasks must not wait
        for these.
        """
        return self._letter_box()

    def _letter_box(self) -> LetterBox:
        """Return a publisher of dead letters that uses the app's `global_keyprefix`."""
        prefix = self.layout.prefix if self.broker_supported else ""
        return LetterBox(self.settings, partial(self.connect, prefix or None), prefix or None)

    @cached_property
    def layout(self) -> Layout:
        """Return the names of the app's keys, if its broker is Redis."""
        return Layout.of(dict(self.app.conf.broker_transport_options or {}))

    def task_mode_of(self, task: Any) -> TaskMode:
        """Return the mode of a bound task of the app."""
        return judge_task(task, self.modes, why_unsupported(self.broker, self.given))

    def mode(self, name: str) -> Mode:
        """Return the mode of a task by its name, also of an unknown task."""
        task = self.app.tasks.get(name)
        if task is None:
            return self.modes.of(name)
        adopted: Mode | None = getattr(task, MODE, None)
        return self.task_mode_of(task).mode if adopted is None else adopted

    @cached_property
    def observer(self) -> Observer:
        """Return the observer, which records tasks that are only observed."""
        return Observer(self)

    @cached_property
    def publisher(self) -> ParkingPublisher:
        """Return the publisher of retries and delayed messages, in the main process."""
        if is_amqp(self.settings):
            return AmqpPublisher(self.settings, self.records.now_us, self.connect)
        if not goes_by_own(self.broker):
            return AppRedisPublisher(self.settings, layout=self.layout)
        timeout_s = self.settings.publish_timeout_s / TRIES
        client = connect(self.broker.redis(), timeout_s=timeout_s)
        return AppRedisPublisher(self.settings, client, self.layout)

    def close(self) -> None:
        """Write the remaining observations; called at the worker's end."""
        if "observer" in self.__dict__:
            self.observer.close()

    def taken_as(self, broker_name: str) -> str:
        """Return the broker's name of a queue, which records and switches have too."""
        return broker_name

    def source(self, message: Any) -> str:
        """Return the broker's name of the queue that a message came from."""
        return broker_queue(message) or ""

    def home(self, record: Record, message: Any) -> str:
        """Return the queue of a job's next message, which is the queue of this one."""
        return self.source(message) or record.queue


@dataclass(frozen=True, slots=True)
class AppKeys(Keys):
    """The names of record keys, as `Keys`, with results in Taskyard's namespace."""

    def result(self, job_id: str) -> str:
        """Return the key of Taskyard's copy of a result; the app keeps the result elsewhere.

        The copy is for continuations that must be published again.
        """
        return self.kept_result(job_id)
