"""The consumer of an installed app: it handles each task's messages by the task's mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from celery.exceptions import InvalidTaskError

from taskyard.broker import has_waited
from taskyard.clock import to_us
from taskyard.engine.consumer import PUT_OFF, JobConsumer
from taskyard.engine.eta_parsing import due_ahead_us
from taskyard.engine.message_shape import fault_of
from taskyard.engine.publish_errors import PUBLISH_ERRORS
from taskyard.engine.queue_routes import queue_named
from taskyard.engine.read_message import (
    is_identified,
    job_id_of,
    named_task,
    raw_message,
    task_of,
    was_delivered_before,
)
from taskyard.engine.source_queue import QUEUE
from taskyard.install.adopt_task import adopt
from taskyard.install.attribute_names import COPY
from taskyard.install.defer_eta import put_off
from taskyard.install.fanout import (
    Copies,
    Copy,
    fanout_exchange,
    is_bound_to_fanout,
    leads_to_fanout,
)
from taskyard.install.installed_context import InstalledContext
from taskyard.install.modes import Mode
from taskyard.install.observed_events import DeadBeforeStart, Watched
from taskyard.jobs.attempt_outcomes import Failed
from taskyard.wire.redacted_logs import logger

__all__ = ["InstalledConsumer"]

log = logger(__name__)

_PAIR: Final = 2
_PROTOCOL_2: Final = 3


class InstalledConsumer(JobConsumer):
    """The consumer of Celery or the app, which also handles a protected app's bad messages."""

    strategies: Any

    # Task events are sent as the app configures them.
    batches_events = False

    @property
    def _yard(self) -> InstalledContext:
        yard: InstalledContext = self.app.taskyard
        return yard

    def _unpacked_limit(self, headers: Mapping[str, Any]) -> int | None:
        """Return None for a task that is not protected, because its messages are not changed."""
        if self._yard.mode(named_task(headers)) is not Mode.PROTECT:
            return None
        return super()._unpacked_limit(headers)

    def update_strategies(self) -> None:
        """Adopt tasks that were registered without Celery's decorators, then prepare the queues."""
        for task in self.app.tasks.values():
            adopt(task, self._yard)
        self._log_task_modes()
        super().update_strategies()

    def _log_task_modes(self) -> None:
        for name, task_mode in self._yard.task_modes.items():
            for warning in task_mode.warnings:
                log.warning(
                    "Taskyard handles task %s in mode %s: %s",
                    name,
                    task_mode.mode,
                    warning,
                    extra={"action": "task_not_protected", "task": name},
                )
        for queue in self.app.amqp.queues.consume_from.values():
            if is_bound_to_fanout(queue):
                log.info(
                    "the messages of the fanout exchange %s are only observed, not protected, "
                    "because each worker gets and runs a copy of its own",
                    queue.exchange.name,
                    extra={"action": "fanout_observed", "exchange": queue.exchange.name},
                )

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        """Return Celery's handler of a task's messages.

        A protected task's message is checked before, and may be delayed.
        """
        guarded = super().create_task_handler(*args, **kwargs)
        plain = self._plain_handler(*args, **kwargs)
        observed = self._handler_of_copies(*args, **kwargs)

        def on_task_received(message: Any) -> Any:
            self._note_queue(message)
            queue = self._yard.source(message)
            copy = self._copy(message, queue)
            setattr(message, COPY, copy)
            if self.held_queues.take_back(message):
                return None
            match self._yard.mode(task_of(message)):
                case Mode.OFF:
                    return plain(message)
                case Mode.OBSERVE:
                    return self._watch(message, plain)
            if copy is not None and fault_of(message) is None:
                return observed(message)
            _forget_the_wait(message, queue)
            return guarded(message)

        return on_task_received

    def _handler_of_copies(self, *args: Any, **kwargs: Any) -> Any:
        """Return Celery's handler for messages of a protected task that are only observed."""
        own, self.strategies = self.strategies, Copies(self.app, self)
        try:
            return self._plain_handler(*args, **kwargs)
        finally:
            self.strategies = own

    def _copy(self, message: Any, queue: str) -> Copy | None:
        exchange = fanout_exchange(self.app, message, queue)
        if exchange is None:
            return None
        # With Redis, workers may read the exchange under one queue's name. A queue of RabbitMQ
        # holds one copy, which another worker gets if this one is lost.
        shared = self.connection.transport.driver_type == "amqp"
        read = self.app.amqp.queues.get(queue)
        if not shared and not (read is not None and leads_to_fanout(read)):
            return None  # only RabbitMQ itself says through which exchange a message came
        return Copy(exchange, queue if shared else self.hostname)

    def _watch(self, message: Any, plain: Callable[[Any], Any]) -> Any:
        """Handle a message as Celery does; treat one that would end the worker as invalid."""
        fault = fatal_fault(message)
        if fault is not None:
            return self.on_invalid_task(None, message, InvalidTaskError(fault))
        try:
            return plain(message)
        except self.connection_errors:
            raise
        except Exception as error:
            if self._yard.ports is not None and self._yard.ports.work.has_place(message):
                raise  # it occupies a process, which only a new worker frees
            return self.on_invalid_task(None, message, error)

    def _put_off(self, message: Any) -> bool:
        due_us = due_ahead_us(message, to_us(datetime.now(UTC)))
        if due_us is None:
            return False
        try:
            if not self._reuses_id(message):
                put_off(self._yard, message, due_us)
        except PUBLISH_ERRORS as error:
            # It waits in this worker, as in Celery.
            self._yard.backoff.failed(PUT_OFF, error, action="not_put_off")
            return False
        self._yard.backoff.succeeded(PUT_OFF)
        self._bare(message).acknowledge()
        return True

    def _note_queue(self, message: Any) -> None:
        """Mark the message with its queue.

        If no consumer named the queue, it is the one of the message's route.
        """
        super()._note_queue(message)
        if getattr(message, QUEUE, None) is None:
            info = message.delivery_info or {}
            exchange, key = str(info.get("exchange") or ""), str(info.get("routing_key") or "")
            setattr(message, QUEUE, queue_named(self.app, exchange, key, ""))

    # -- what never reaches a task -------------------------------------------------------------

    def _refuse(
        self, message: Any, outcome: Failed, handle_as_celery: Callable[[], object]
    ) -> None:
        """Drop a message as Celery does; publish the dead letter of a protected one before."""
        mode = self._yard.mode(task_of(message))
        if mode is Mode.PROTECT:
            self._die(message, outcome)
            if not self._bare(message).acknowledged:
                return  # it went back to its queue
            # Acknowledged: only Celery's signals, event and result are left to do.
            message.reject_log_error = message.ack = _nothing
        elif mode is Mode.OBSERVE:
            before = was_delivered_before(message)
            dead = DeadBeforeStart(self._watched(message), outcome, raw_message(message), before)
            self._yard.observer.observe(dead)
        handle_as_celery()

    def _watched(self, message: Any) -> Watched:
        queue = self._yard.source(message)
        job_id = job_id_of(message) if is_identified(message) else ""
        return Watched(job_id, "", task_of(message), queue, self.hostname)


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _forget_the_wait(message: Any, queue: str) -> None:
    """Remove the delay's route from a message, because Celery sends a retry by the same route.

    The key of a delay names its length before the queue, and no queue has such a name.
    """
    info = message.delivery_info or {}
    if has_waited(info):
        message.delivery_info = {**info, "exchange": "", "routing_key": queue}


# An observed task's message is handled by Celery, whatever is wrong with it, except for one that
# would end the worker: that is treated as Celery treats an invalid task.
def fatal_fault(message: Any) -> str | None:
    """Return the fault of a message that would end the worker or block a process for ever.

    None if Celery handles the message safely.
    """
    headers = message.headers
    if not isinstance(headers, Mapping) or "task" not in headers:
        return None
    for name in ("id", "task"):
        if not isinstance(headers.get(name), str | int):
            return f"header {name!r} must be a text, got {headers.get(name)!r:.60}"
    if isinstance(headers.get("shadow"), list | dict):
        return f"header 'shadow' must be a text, got {headers['shadow']!r:.60}"
    limits, stamped = headers.get("timelimit"), headers.get("stamped_headers")
    if limits and not _are_limits(limits):
        return f"header 'timelimit' must be two numbers or nulls, got {limits!r:.60}"
    if stamped and not _are_keys(stamped):
        return f"header 'stamped_headers' must be a list of texts, got {stamped!r:.60}"
    return _body_fault(message)


def _are_limits(limits: Any) -> bool:
    return (
        isinstance(limits, list | tuple)
        and len(limits) == _PAIR
        and all(item is None or isinstance(item, int | float) for item in limits)
    )


def _are_keys(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and not any(isinstance(item, list | dict) for item in value)
    )


def _body_fault(message: Any) -> str | None:
    try:
        payload = message.payload
    except Exception:  # noqa: BLE001 - Celery's own path reports what cannot be decoded
        return None
    if isinstance(payload, list | tuple) and len(payload) == _PROTOCOL_2:
        embed = payload[2]
        if embed and not isinstance(embed, dict):
            return f"embed must be a mapping, got {embed!r:.60}"
    return None
