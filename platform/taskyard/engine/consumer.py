"""The consumer: what never reaches a task becomes a letter too."""

from __future__ import annotations

import logging
from typing import Any, Final

from celery.worker.consumer import Consumer
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from taskyard.deadletters import build_letter
from taskyard.engine.duties import defer
from taskyard.engine.message import job_id_of, raw_message, stamp_of, task_of
from taskyard.engine.yard import Yard
from taskyard.errors import TaskyardError
from taskyard.jobs.outcomes import Failed
from taskyard.jobs.policies import Category
from taskyard.jobs.states import State
from taskyard.records import Decided, Held
from taskyard.runner.cause import encode_cause, plain_failure
from taskyard.wire import Stamp

__all__ = ["JobConsumer"]

log = logging.getLogger(__name__)
_FAILED = (TaskyardError, RedisError, OperationalError, OSError)


# Events are for people: ten publications a second show as much as one for each task, and cost a
# tenth of the main process' time where that costs more than half of it.
EVENT_INTERVAL_S: Final = 0.1
EVENT_BATCH: Final = 1_000


class JobConsumer(Consumer):  # type: ignore[misc]
    """Celery's consumer with a way out for every message."""

    _flush_entry: Any = None

    def on_send_event_buffered(self) -> None:
        """Publish buffered task events together, at most every `EVENT_INTERVAL_S`."""
        if self.hub and self._flush_entry is None:
            self.event_dispatcher.buffer_limit = EVENT_BATCH
            self._flush_entry = self.hub.call_later(EVENT_INTERVAL_S, self._flush_buffered)

    def _flush_buffered(self) -> None:
        self._flush_entry = None
        try:
            self._flush_events()
        except self.connection_errors as error:
            log.warning("task events not published: %s", error, extra={"action": "events_late"})

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """No task header: nobody can run it."""
        text = "the message has no task header"
        self._die(message, Category.UNDECODABLE, "no_task", "UnknownMessage", text)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """A task that no handler here is registered for."""
        name = task_of(message)
        text = f"worker {self.hostname} has no handler for {name!r}; deploy one, then replay"
        self._die(message, Category.UNKNOWN_TASK, "unknown_task", "NotRegistered", text)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Headers or arguments of a shape that Celery refuses."""
        text = f"the message is no valid task: {exc}"
        self._die(message, Category.UNDECODABLE, "invalid", type(exc).__name__, text)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """A body that cannot be decoded."""
        text = f"the body cannot be decoded: {exc}"
        self._die(message, Category.UNDECODABLE, "undecodable", type(exc).__name__, text)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        """Celery's handler, behind a check of the message's shape."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> Any:
            fault = _fault(message)
            if fault is None:
                return None if self._delivered_too_often(message) else handle(message)
            text = f"the message is no valid task: {fault}"
            return self._die(message, Category.UNDECODABLE, "malformed", "Malformed", text)

        return on_task_received

    def _delivered_too_often(self, message: Any) -> bool:
        """Count a redelivered message; one that kills its worker before `begin` ends here too."""
        if not (message.delivery_info or {}).get("redelivered"):
            return False
        yard: Yard = self.app.taskyard
        try:
            count = yard.records.deliver(job_id_of(message))
        except RedisError as error:
            log.warning(
                "a redelivery was not counted, Redis is away: %s",
                error,
                extra={"action": "deliver_unreachable"},
            )
            return False
        limit = yard.settings.delivery_limit
        if count <= limit:
            return False
        text = f"deliveries reached {count}, the limit is {limit}"
        evidence: dict[str, object] = {"counter": "deliveries", "count": count, "limit": limit}
        self._die(message, Category.POISON, "poison", "PoisonJob", text, evidence)
        return True

    def _die(
        self,
        message: Any,
        category: Category,
        code: str,
        kind: str,
        text: str,
        evidence: dict[str, object] | None = None,
    ) -> None:
        """Record the death, publish its letter, acknowledge; failing that, put the message back."""
        try:
            self._publish_letter(message, plain_failure(category, code, kind, text, evidence))
        except _FAILED as error:
            log.error(
                "a message could not be dead-lettered and goes back: %s",
                error,
                extra={"action": "letter_failed"},
            )
            message.reject_log_error(log, self.connection_errors, requeue=True)
            return
        message.ack_log_error(log, self.connection_errors)

    def _publish_letter(self, message: Any, outcome: Failed) -> None:
        yard: Yard = self.app.taskyard
        job_id, failure = job_id_of(message), outcome.failure
        log.warning(
            "message of job %s is a dead letter: %s",
            job_id,
            failure.message,
            extra={"action": "message_buried", "job_id": job_id},
        )
        answer = yard.records.condemn(
            job_id,
            stamp_of(message),
            job_type=task_of(message),
            queue=yard.source(message),
            priority=None,
            cause=encode_cause(outcome),
            code=failure.code,
            category=outcome.category,
            message=failure.message,
        )
        if isinstance(answer, Held):
            # The job runs under another message; this one has nothing to say before that ends.
            defer(yard, job_id, message, stamp_of(message), answer.remaining_us).discharge()
            return
        record = yard.records.read(job_id)
        if isinstance(answer, Decided) and record.state is State.DEAD_LETTERED:
            yard.letters.post(build_letter(record, raw_message(message)))


def _fault(message: Any) -> str | None:
    """What is wrong with the shape of a message that claims to be a task, None if nothing is."""
    headers = message.headers or {}
    if "task" not in headers:
        return None
    for name in ("id", "task"):
        if not isinstance(headers.get(name), str) or not headers[name]:
            return f"header {name!r} must be a text, got {headers.get(name)!r:.60}"
    try:
        Stamp.read(headers)
    except ValueError as error:
        # Judged as one without a stamp, a stale message could run again.
        return str(error)
    limits = headers.get("timelimit")
    if limits is not None and not _are_limits(limits):
        return f"header 'timelimit' must be two numbers or nulls, got {limits!r:.60}"
    stamped = headers.get("stamped_headers")
    if stamped is not None and not isinstance(stamped, list):
        return f"header 'stamped_headers' must be a list, got {stamped!r:.60}"
    return _body_fault(message)


def _are_limits(limits: Any) -> bool:
    if not isinstance(limits, list | tuple) or len(limits) != 2:  # noqa: PLR2004 - hard, soft
        return False
    return all(item is None or (isinstance(item, int | float) and item > 0) for item in limits)


def _body_fault(message: Any) -> str | None:
    try:
        payload = message.payload
    except Exception:  # noqa: BLE001 - Celery's own path reports what cannot be decoded
        return None
    if not isinstance(payload, list | tuple) or len(payload) != 3:  # noqa: PLR2004 - protocol 2
        return "the body must be [args, kwargs, embed]"
    args, kwargs, embed = payload
    if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
        return "args must be a list and kwargs a mapping"
    if embed is not None and not isinstance(embed, dict):
        return "embed must be a mapping"
    return None
