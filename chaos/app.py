"""An existing Celery app as its owners wrote it, and `install` as its last line.

Its task does what the native handler does (`chaos.jobs`) in Celery's own words: `autoretry_for`,
and `taskyard.inbox.once` in the transaction of its effect, by its task id.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery
from kombu import Queue
from sqlalchemy.exc import OperationalError

from chaos.effects import apply_once, note_effect, note_poisoning, work_s
from taskyard.install import install
from taskyard.settings import Settings

__all__ = ["QUEUE", "QUEUES", "TASK", "Configuration", "make_app"]

QUEUE: Final = "storm.work"
# Only operators move jobs to the second one.
QUEUES: Final = (QUEUE, "storm.more")
TASK: Final = "storm.deed"
# Short, so that a storm shows what returns and not how long one waits.
_VISIBILITY_S: Final = 20
_SOCKET_S: Final = 10
_TIME_LIMIT_S: Final = 30


class FlakyError(Exception):
    """The first attempt of a flaky job fails."""


class DoomedError(Exception):
    """Every attempt of a doomed job fails."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """`backend` is empty in a producer that waits for no result."""

    broker: str
    backend: str
    transport: bool
    admit: bool

    @property
    def redis(self) -> bool:
        """Whether the broker is Redis."""
        return self.broker.startswith("redis")

    def variables(self) -> dict[str, str]:
        """The environment by which a worker reads the same."""
        return {
            "CHAOS_BROKER": self.broker,
            "CHAOS_BACKEND": self.backend,
            "CHAOS_TRANSPORT": "1" if self.transport else "",
            "CHAOS_ADMIT": "1" if self.admit else "",
        }

    @classmethod
    def read(cls) -> Configuration:
        """From the environment."""
        own = os.environ
        return cls(
            own["CHAOS_BROKER"],
            own["CHAOS_BACKEND"],
            bool(own["CHAOS_TRANSPORT"]),
            bool(own["CHAOS_ADMIT"]),
        )


def make_app(configuration: Configuration, settings: Settings | None = None) -> Any:
    """The app with Taskyard installed; without `settings` they come from the environment."""
    app = Celery("storm", broker=configuration.broker, backend=configuration.backend or None)
    app.conf.update(
        task_default_queue=QUEUE,
        task_queues=[Queue(name) for name in QUEUES],
        broker_connection_retry_on_startup=True,
        # Celery gives up after 100 vain attempts by default; these servers always come back.
        broker_connection_max_retries=None,
        broker_transport_options=_options(configuration),
    )
    install(
        app,
        mode="protect",
        settings=settings,
        # Without the keyword an app at Redis has Taskyard's.
        transport=None if configuration.transport else False,
        admit=configuration.admit,
    )
    _add_task(app)
    return app


def _options(configuration: Configuration) -> dict[str, Any]:
    if not configuration.redis:
        # Without confirmation a producer cannot know whether RabbitMQ has what it published.
        return {"confirm_publish": True}
    if configuration.transport:
        # The visibility timeout stays an hour: a short one would bring back what is stranded.
        return {"socket_timeout": _SOCKET_S}
    return {
        "visibility_timeout": _VISIBILITY_S,
        # kombu looks for what is overdue every 100 s by default.
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        # A worker that is killed while it looks locks the others out, for 5 minutes by default.
        "unacked_mutex_expire": 5,
        "socket_timeout": _SOCKET_S,
    }


def _add_task(app: Any) -> None:
    @app.task(  # type: ignore[untyped-decorator]  # Celery's
        name=TASK,
        bind=True,
        shared=False,
        autoretry_for=(FlakyError, OperationalError),
        max_retries=12,
        retry_backoff=1,
        retry_backoff_max=4,
        retry_jitter=False,
        time_limit=_TIME_LIMIT_S,
    )
    def deed(self: Any, number: int, kind: str) -> int:
        job_id = self.request.id
        if kind == "doomed":
            raise DoomedError("asked to fail for good")
        if kind == "poison":
            note_poisoning(job_id)
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "flaky" and self.request.retries == 0:
            raise FlakyError("asked to fail once")
        if kind == "slow":
            time.sleep(work_s(number))
        apply_once(job_id)
        note_effect(job_id)
        if kind == "early":
            time.sleep(work_s(number))
        return number
