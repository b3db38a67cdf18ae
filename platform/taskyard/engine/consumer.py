"""The consumer: what never reaches a task becomes a letter too."""

from __future__ import annotations

from datetime import UTC, datetime
from time import monotonic, sleep
from typing import Any, Final

from celery.worker.consumer import Consumer
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from taskyard.broker import settle_queues
from taskyard.clock import to_us
from taskyard.deadletters import build_letter
from taskyard.engine.duties import defer
from taskyard.engine.message import job_id_of, raw_message, stamp_of, task_of
from taskyard.engine.reconnecting import Reconnecting
from taskyard.engine.task_events import UnconfirmedEvents
from taskyard.engine.yard import Yard
from taskyard.errors import TaskyardError
from taskyard.jobs.outcomes import Failed
from taskyard.jobs.policies import Category
from taskyard.jobs.states import State
from taskyard.records import Decided, Held
from taskyard.runner.cause import encode_cause, plain_failure
from taskyard.wire import Stamp, clean_text
from taskyard.wire.logs import logger

__all__ = ["JobConsumer"]

log = logger(__name__)
_LONGEST_NAME: Final = 255
_LONGEST_LIMIT_S: Final = 10**8
# What is due this soon may wait in the worker.
_SOON_US: Final = 1_000_000
_FAILED = (TaskyardError, RedisError, OperationalError, OSError)


# Events are for people: ten publications a second show as much as one for each task, and cost a
# tenth of the main process' time where that costs more than half of it.
EVENT_INTERVAL_S: Final = 0.1
EVENT_BATCH: Final = 1_000


class JobConsumer(UnconfirmedEvents, Consumer):  # type: ignore[misc]
    """Celery's consumer with a way out for every message."""

    _flush_entry: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reconnecting = Reconnecting()

    def on_connection_error_after_connected(self, exc: BaseException) -> None:
        """Celery's clearing up, then a wait where one loss follows another."""
        super().on_connection_error_after_connected(exc)
        wait_s = self._reconnecting.wait_s(monotonic())
        if wait_s > 0:
            log.warning(
                "the broker is lost again, connecting in %.1f s: %s",
                wait_s,
                exc,
                extra={"action": "reconnect_waits", "wait_s": wait_s},
            )
            sleep(wait_s)

    def update_strategies(self) -> None:
        """Celery calls it just before it sets the prefetch and consumes: the queues come first."""
        settle_queues(self.app.taskyard.settings, self.app, self.connection)
        super().update_strategies()

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
            if fault is None and (self._delivered_too_often(message) or self._put_off(message)):
                return None
            if fault is None:
                try:
                    return handle(message)
                except self.connection_errors:
                    raise
                except Exception as error:
                    # Let out, it would end this worker, and the next one that takes the message.
                    log.exception("a message could not be taken", extra={"action": "not_taken"})
                    fault = f"{type(error).__name__}: {error}"
            text = f"the message is no valid task: {fault}"
            return self._die(message, Category.UNDECODABLE, "malformed", "Malformed", text)

        return on_task_received

    def _put_off(self, message: Any) -> bool:
        """A message whose ETA is ahead waits in the delay store, not in this worker.

        Celery would hold it here, past the visibility timeout, and count it as redelivered.
        """
        due_us, now_us = _due_us(message), to_us(datetime.now(UTC))
        if due_us is None or due_us - now_us <= _SOON_US:
            return False
        yard: Yard = self.app.taskyard
        stamp = stamp_of(message) or Stamp(now_us, sent_us=due_us)
        try:
            defer(yard, job_id_of(message), message, stamp, due_us - now_us).discharge()
        except _FAILED as error:
            log.warning(
                "a message could not be put off, this worker holds it: %s",
                error,
                extra={"action": "put_off_failed"},
            )
            return False
        message.ack_log_error(log, self.connection_errors)
        return True

    def _delivered_too_often(self, message: Any) -> bool:
        """Count a redelivered message; one that kills its worker before `begin` ends here too."""
        if not (message.delivery_info or {}).get("redelivered"):
            return False
        yard: Yard = self.app.taskyard
        limit = yard.settings.delivery_limit
        try:
            count = yard.records.deliver(job_id_of(message))
            if count <= limit or _is_decided(yard, message):
                return False
        except RedisError as error:
            log.warning(
                "a redelivery was not counted, Redis is away: %s",
                error,
                extra={"action": "deliver_unreachable"},
            )
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
        outcome = plain_failure(category, code, kind, text, evidence)
        try:
            self._publish_letter(message, outcome)
        except (*_FAILED, ValueError, TypeError) as error:
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


def _is_decided(yard: Yard, message: Any) -> bool:
    """Whether this message's attempt has an outcome, and only the publication of it is repeated.

    That may take as long as a broker takes nothing; it is no sign of poison.
    """
    record, stamp = yard.records.read(job_id_of(message)), stamp_of(message)
    own = (0, 0) if stamp is None else (stamp.generation, stamp.seq)
    return record.state is State.DEAD_LETTERED or own < (record.generation, record.number("seq"))


def _fault(message: Any) -> str | None:  # noqa: PLR0911 - one fault a line
    """What is wrong with the shape of a message that claims to be a task, None if nothing is."""
    headers = message.headers or {}
    if "task" not in headers:
        return None
    for name in ("id", "task"):
        if not _is_name(headers.get(name)):
            return f"header {name!r} must be a short plain text, got {headers.get(name)!r:.60}"
    for name in ("content_type", "content_encoding"):
        value = getattr(message, name, None)
        if value is not None and not isinstance(value, str):
            return f"{name} must be a text, got {value!r:.60}"
    try:
        Stamp.read(headers)
    except ValueError as error:
        # Judged as one without a stamp, a stale message could run again.
        return str(error)
    limits = headers.get("timelimit")
    if limits is not None and not _are_limits(limits):
        return f"header 'timelimit' must be two numbers or nulls, got {limits!r:.60}"
    stamped = headers.get("stamped_headers")
    if stamped is not None and not _are_texts(stamped):
        return f"header 'stamped_headers' must be a list of texts, got {stamped!r:.60}"
    return _body_fault(message)


def _are_limits(limits: Any) -> bool:
    if not isinstance(limits, list | tuple) or len(limits) != 2:  # noqa: PLR2004 - hard, soft
        return False
    return all(
        item is None or (isinstance(item, int | float) and 0 < item < _LONGEST_LIMIT_S)
        for item in limits
    )


def _due_us(message: Any) -> int | None:
    """When a message's ETA is, in microseconds; None where it has none that can be read."""
    eta = (message.headers or {}).get("eta")
    if not isinstance(eta, str):
        return None
    try:
        moment = datetime.fromisoformat(eta)
        return to_us(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None


def _is_name(value: Any) -> bool:
    """Whether a header can be a key: a text of a key's length that every store can hold."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME and clean_text(value) == value


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


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
    for name in ("callbacks", "errbacks", "chain"):
        if not _are_signatures((embed or {}).get(name)):
            return f"embed {name!r} must be a list of signatures"
    return None


def _are_signatures(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, list) and all(
        isinstance(item, dict) and isinstance(item.get("options", {}), dict) for item in value
    )
