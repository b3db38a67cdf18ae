"""Write the record of a protected task's job when the task is published.

So the job has its record before a worker gets it. `install(app, admit=True)` turns this on. A
thread writes the records: the caller does not wait, and gets no error, as without Taskyard. If a
process is killed, the publications of its last 20 ms have no record.
"""

from __future__ import annotations

import atexit
import queue
import threading
from functools import cache
from typing import Any, Final

from celery.app.amqp import AMQP

from taskyard.engine.queue_routes import queue_named
from taskyard.install.background_queue import Backlog
from taskyard.install.capturing_producer import CapturingProducer
from taskyard.install.fanout import fanout_target
from taskyard.install.installed_context import InstalledContext
from taskyard.install.modes import Mode
from taskyard.records import UnadmittedJob
from taskyard.wire.redacted_logs import logger

__all__ = ["PublishRecorder", "watch_publishing"]

log = logger(__name__)

# At most this many publications wait for their record (about 10 MiB); more get none from here.
_WAITING: Final = 50_000
_BATCH: Final = 500
# Publications of this time share one round trip; a person does not notice the delay.
_GATHER_S: Final = 0.02
# A program that ends waits at most this long for the records of its last publications.
_EXIT_S: Final = 2.0

Published = tuple[str, str, str, bool]


class PublishRecorder:
    """A queue and a thread, new in each process, that write records of publications.

    The first publication starts the thread.
    """

    def __init__(self, yard: InstalledContext) -> None:
        self._yard = yard
        self._backlog: Backlog[Published] = Backlog(
            "taskyard-publish-recorder", _WAITING, self._run
        )
        self.dropped = 0
        atexit.register(self.close)

    def record(self, job_id: str, name: str, queue_name: str, *, published: bool) -> None:
        """Note a publication of a task, or a failed one; never waits and never raises."""
        try:
            self._backlog.put((job_id, name, queue_name, published))
        except queue.Full:
            self._drop(1, "Redis stores the records too slowly")
        except RuntimeError as error:
            self._drop(1, str(error))

    def close(self) -> None:
        """Write the remaining records, for at most two seconds."""
        if not self._backlog.close(_EXIT_S):
            log.warning(
                "some published tasks have no record yet: at the end of this process, Redis "
                "did not store all records within %g s. A worker creates each record when it "
                "begins the task",
                _EXIT_S,
                extra={"action": "publications_left"},
            )

    def _run(self, waiting: queue.Queue[Published | None]) -> None:
        ending = threading.Event()
        while not ending.is_set():
            entry = waiting.get()
            batch = [] if entry is None else [entry]
            if entry is not None:
                ending.wait(_GATHER_S)
            while entry is not None and len(batch) < _BATCH and not waiting.empty():
                entry = waiting.get_nowait()
                if entry is not None:
                    batch.append(entry)
            if entry is None:
                ending.set()
            self._write(batch)

    def _write(self, batch: list[Published]) -> None:
        for published in (True, False):
            jobs = [
                UnadmittedJob(job_id, name, queue_name)
                for job_id, name, queue_name, sent in batch
                if sent is published
            ]
            try:
                if jobs:
                    self._yard.records.record_publications(jobs, published=published)
            except Exception as error:  # noqa: BLE001 - whatever it is, the app must not notice
                self._drop(len(jobs), f"{type(error).__name__}: {error}")

    def _drop(self, count: int, why: str) -> None:
        before = self.dropped
        self.dropped += count
        if self.dropped.bit_length() != before.bit_length():
            log.warning(
                "%d published tasks have no record yet; a worker creates each record when it "
                "begins the task: %s",
                self.dropped,
                why,
                extra={"action": "publication_not_recorded"},
            )


def watch_publishing(app: Any, yard: InstalledContext) -> None:
    """Record every publication of a protected task, also failed publications."""
    recorder = PublishRecorder(yard)

    def watch(**_: Any) -> None:
        amqp = app.amqp
        if getattr(type(amqp), "send_task_message", None) is not AMQP.send_task_message:
            log.warning(
                "tasks get no record when they are published, because the app's class %s "
                "overrides how Celery sends messages",
                type(amqp).__name__,
                extra={"action": "publications_not_watched"},
            )
            return
        # Not before the first publication, since it reads what the app may still configure.
        plain = cache(amqp._create_task_sender)

        def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> Any:
            watched = yard.mode(name) is Mode.PROTECT and not fanout_target(app, options)
            if isinstance(producer, CapturingProducer) or not watched:
                return plain()(producer, name, message, **options)
            facts = (_job_id(message), name, _queue(app, options))
            try:
                sent = plain()(producer, name, message, **options)
            except BaseException:
                recorder.record(*facts, published=False)
                raise
            recorder.record(*facts, published=True)
            return sent

        amqp.send_task_message = send_task_message

    # An app that only publishes may never be finalized.
    app.on_after_configure.connect(watch, weak=False)
    if app.configured:
        watch()


def _job_id(message: Any) -> str:
    # Protocol 1 has it in the body.
    return str(message.headers.get("id") or message.body["id"])


def _queue(app: Any, options: dict[str, Any]) -> str:
    """Return the queue of a published message; empty if only the broker knows it."""
    wanted, exchange = options.get("queue"), options.get("exchange")
    if wanted is not None:
        return str(getattr(wanted, "name", wanted))
    if exchange is None:
        return str(app.amqp.default_queue.name)
    key = str(options.get("routing_key") or "")
    found = queue_named(app, str(getattr(exchange, "name", exchange)), key, "")
    return found if found in app.amqp.queues else ""
