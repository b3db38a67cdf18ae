"""Celery's consumer, in which a message that reaches no task becomes a dead letter too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from time import monotonic, sleep
from typing import Any, Final

from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown
from kombu.transport import virtual

from taskyard.broker import keep_packed, keep_transport, read_any_header, settle_queues
from taskyard.clock import to_us
from taskyard.engine.broadcast_node import drop_control_message, receive_broadcasts
from taskyard.engine.broker_reconnect import (
    CALM_S,
    LONGEST_S,
    Reconnecting,
    close_in_two_steps,
    silence_events_while_blocked,
    unconfirm_remote_control,
)
from taskyard.engine.cancelled_timers import discard_cancelled
from taskyard.engine.celery_attempts import CeleryAttempts
from taskyard.engine.celery_messages import BareMessage, CeleryMessages
from taskyard.engine.delivery_limit import deliveries_over_limit
from taskyard.engine.eta_parsing import due_ahead_us
from taskyard.engine.message_shape import fault_of
from taskyard.engine.pending_publications import Owing, pending_publication
from taskyard.engine.ports import Messages, WayBack, WorkerPorts
from taskyard.engine.prefork_pool import OwnPipesPool
from taskyard.engine.publish_errors import PUBLISH_ERRORS
from taskyard.engine.queue_routes import queue_named
from taskyard.engine.quorum_delivery_limit import Returns
from taskyard.engine.read_message import is_identified, job_id_of, position_of, task_of
from taskyard.engine.source_queue import QUEUE, note_queues, queue_by_tag
from taskyard.engine.strip_credentials import take_credential
from taskyard.engine.unrunnable_messages import dead_letter
from taskyard.engine.worker_context import WorkerContext
from taskyard.jobs.attempt_outcomes import Failed
from taskyard.runner.death_causes import (
    delivered_too_often,
    invalid_task,
    malformed,
    no_task,
    not_taken,
    undecodable,
    unknown_task,
)
from taskyard.runner.reused_ids import reuse_in
from taskyard.runner.settlement_rules import DeferMessage, PostOwnLetter, Settlement
from taskyard.wire import Stamp
from taskyard.wire.redacted_logs import logger

__all__ = ["PUT_OFF", "JobConsumer"]

log = logger(__name__)
# Events are for people: ten publications a second show as much as one for each task, which takes
# more than half of the main process' time; these take a tenth of that.
EVENT_INTERVAL_S: Final = 0.1
EVENT_BATCH: Final = 1_000
# How often a worker that waits for its broker checks whether it must end.
_LOOK_S: Final = 0.2
_EVENTS: Final = "Celery's task events were not published"
_LETTER: Final = "a message that reaches no task was not dead-lettered, so it stays in this worker"
PUT_OFF: Final = "a message with an ETA was not moved to the delay store"


class JobConsumer(Consumer):  # type: ignore[misc]
    """Celery's consumer, in which every message ends with an outcome."""

    batches_events = True
    _flush_entry: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Celery's own step makes the receiver of control commands, within this call.
        receive_broadcasts(kwargs["app"])
        super().__init__(*args, **kwargs)
        self._reconnecting = Reconnecting(self.app.taskyard.backoff)
        messages = CeleryMessages(self)
        attempts = CeleryAttempts(self, messages)
        self.app.taskyard.ports = WorkerPorts(messages, attempts, attempts, attempts)
        self.held_queues = messages.held_queues
        # In a pool of processes jobs have time limits, and one thread uses the timer.
        if getattr(self.pool, "uses_semaphore", False):
            discard_cancelled(self.timer)

    def stop(self) -> None:
        """Take no more messages, and return the held ones.

        The pool's last job may run for hours.
        """
        super().stop()
        self.app.taskyard.ports.messages.end_holding()

    def on_connection_error_after_connected(self, exc: BaseException) -> None:
        """Clean up as Celery does; wait if one connection is lost soon after another."""
        if self.connection is not None:
            close_in_two_steps(self.connection)
        super().on_connection_error_after_connected(exc)
        until = monotonic() + self._reconnecting.wait_s(monotonic(), exc)
        while (left_s := until - monotonic()) > 0:
            # A worker that must end while it waits ends.
            maybe_shutdown()
            sleep(min(left_s, _LOOK_S))

    def connect(self) -> Any:
        """Return Celery's connection for taking messages; remote control uses a second one."""
        connection = super().connect()
        unconfirm_remote_control(self.app, connection)
        return connection

    def connection_for_write(self, url: str | None = None, heartbeat: float | None = None) -> Any:
        """Return the connection for task events; Celery's consumer uses it for nothing else."""
        connection = self.app.connection_for_write(url=url, heartbeat=heartbeat)
        silence_events_while_blocked(connection, self)
        return self.ensure_connected(connection)

    def ensure_connected(self, conn: Any) -> Any:
        """Reconnect as Celery does, with at most `LONGEST_S` between two tries.

        That limit holds if Celery may try without end. kombu waits 2 s longer each time, up
        to 30 s, and would miss a server that is reachable only for short times.
        """
        if not self.app.conf.broker_connection_max_retries:
            intervals = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": LONGEST_S}
            conn.ensure_connection = partial(conn.ensure_connection, **intervals)
        keep_transport(conn)
        read_any_header(conn)
        connected = super().ensure_connected(conn)
        processes = getattr(self.pool, "_pool", None)
        if isinstance(processes, OwnPipesPool):
            processes.read_new_processes()
        return connected

    def update_strategies(self) -> None:
        """Prepare the queues before Celery sets the prefetch count and consumes.

        Celery calls this method just before that.
        """
        settle_queues(self.app.taskyard.settings, self.app, self.connection)
        # The channel on which Celery consumes, new with each connection.
        keep_packed(self.connection.default_channel, self._unpacked_limit)
        super().update_strategies()
        # Before the first message: jobs that the lost connection cut off must not wait for their
        # leases.
        self.app.taskyard.releases.settle()
        reconnecting = self._reconnecting
        self.timer.call_after(CALM_S, reconnecting.note_calm, (reconnecting.losses,))

    def _unpacked_limit(self, headers: Mapping[str, Any]) -> int | None:
        """Return the limit in bytes for a decompressed message body; None for no limit."""
        limit: int = self.app.taskyard.settings.max_unpacked_bytes
        return limit

    def on_send_event_buffered(self) -> None:
        """Publish buffered task events together, at most every `EVENT_INTERVAL_S`."""
        if not self.batches_events:
            super().on_send_event_buffered()
        elif self.hub and self._flush_entry is None:
            self.event_dispatcher.buffer_limit = EVENT_BATCH
            self._flush_entry = self.hub.call_later(EVENT_INTERVAL_S, self._flush_buffered)

    def _flush_buffered(self) -> None:
        self._flush_entry = None
        backoff = self.app.taskyard.backoff
        try:
            self._flush_events()
        except self.connection_errors as error:
            backoff.failed(_EVENTS, error, action="events_late")
        else:
            backoff.succeeded(_EVENTS)

    def add_task_queue(self, queue: Any, *args: Any, **kwargs: Any) -> None:
        """Consume a queue, as a control command says; one that a switch holds only when it ends."""
        super().add_task_queue(queue, *args, **kwargs)
        self.held_queues.apply()

    # -- what never reaches a task -------------------------------------------------------------

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Dead-letter a message without a task header, because nothing can run it."""
        self._refuse(message, no_task(), partial(super().on_unknown_message, body, message))

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Dead-letter a message whose task has no handler in this worker."""
        outcome = unknown_task(task_of(message), self.hostname)
        self._refuse(message, outcome, partial(super().on_unknown_task, body, message, exc))

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Dead-letter a message whose headers or arguments Celery refuses."""
        handle_as_celery = partial(super().on_invalid_task, body, message, exc)
        self._refuse(message, invalid_task(exc), handle_as_celery)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Dead-letter a message whose body cannot be decoded, or would be too large.

        Celery's receiver of control commands calls this method too.
        """
        if self._is_control_message(message):
            drop_control_message(exc)
            return
        self._note_queue(message)
        self._refuse(message, undecodable(exc), partial(super().on_decode_error, message, exc))

    def _is_control_message(self, message: Any) -> bool:
        """Return whether the receiver of control commands got the message, on its own channel."""
        channel = getattr(message, "channel", None)
        if channel is None or channel is self.task_consumer.channel:
            return False
        info = message.delivery_info or {}
        return bool(info.get("exchange") == self.app.control.mailbox.exchange.name)

    def _refuse(
        self, message: Any, outcome: Failed, _handle_as_celery: Callable[[], object]
    ) -> None:
        """End a message with a dead letter; Celery would drop it."""
        self._die(message, outcome)

    # -- the way to a task ---------------------------------------------------------------------

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        """Return Celery's handler of a task's messages, with a check of their shape before it."""
        # Celery calls this just before it consumes, and again after each reconnection.
        note_queues(self.task_consumer.channel)
        return self._guarded(self._plain_handler(*args, **kwargs))

    def _plain_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """Return the handler of a task's messages that Celery or the app defines."""
        handle: Callable[[Any], Any] = super().create_task_handler(*args, **kwargs)
        return handle

    def _guarded(self, handle: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Wrap `handle`, so that it gets only valid messages.

        All other messages end here, or wait here.
        """

        def on_task_received(message: Any) -> Any:
            self._note_queue(message)
            take_credential(message)
            self._correct_route(message)
            self._watch_returns(message)
            if self.held_queues.take_back(message):
                return None
            fault = fault_of(message)
            if fault is not None:
                return self._die(message, malformed(fault))
            if self._delivered_too_often(message) or self._put_off(message):
                return None
            try:
                return handle(message)
            except self.connection_errors:
                raise
            except Exception as error:
                # An error that is raised here would end this worker, and each next one that takes
                # the message.
                log.exception(
                    "Celery raised an error over a message, which becomes a dead letter",
                    extra={"action": "not_taken"},
                )
                return self._die(message, not_taken(error, self.hostname))

        return on_task_received

    def _watch_returns(self, message: Any) -> None:
        """Publish a message again before RabbitMQ drops it for too many returns."""
        if "x-delivery-count" in (message.headers or {}):
            returns = Returns(self.app.taskyard, self.timer.call_after)
            returns.watch(message, queue_by_tag(message, self.task_consumer))

    def _note_queue(self, message: Any) -> None:
        """Mark the message with the queue that it was taken from."""
        queue = queue_by_tag(message, self.task_consumer)
        if queue is not None:
            setattr(message, QUEUE, queue)

    def _correct_route(self, message: Any) -> None:
        """Correct the route in a message; Celery publishes a task's own retry by that route.

        If the client has written a route to another queue than the one that the message was
        taken from, the retry would be lost.
        """
        taken = getattr(message, QUEUE, None)
        if taken is None or not isinstance(self.task_consumer.channel, virtual.Channel):
            return
        info = message.delivery_info or {}
        exchange, key = str(info.get("exchange") or ""), str(info.get("routing_key") or "")
        if queue_named(self.app, exchange, key, taken) != taken:
            message.delivery_info = {**info, "exchange": "", "routing_key": taken}

    def _put_off(self, message: Any) -> bool:
        """Move a message whose ETA is in the future to the delay store.

        Celery would hold the message in the worker, past the visibility timeout, and the
        broker would count it as redelivered.
        """
        now_us = to_us(datetime.now(UTC))
        due_us = due_ahead_us(message, now_us)
        if due_us is None:
            return False
        yard: WorkerContext = self.app.taskyard
        stamp = position_of(message) or Stamp(now_us, sent_us=due_us)
        try:
            if not self._reuses_id(message):
                self._publish(message, stamp, DeferMessage(due_us - now_us))
        except PUBLISH_ERRORS as error:
            # This worker holds it until then, as Celery does.
            yard.backoff.failed(PUT_OFF, error, action="put_off_failed")
            return False
        yard.backoff.succeeded(PUT_OFF)
        self._bare(message).acknowledge()
        return True

    def _bare(self, message: Any) -> BareMessage:
        return BareMessage(message, self.connection_errors)

    def _reuses_id(self, message: Any) -> bool:
        """Publish the dead letter of a delayed message that uses another job's id.

        Return whether it uses one.

        A delayed message gets a stamp, and would then look like a message of that other
        job. Raises one of `PUBLISH_ERRORS`.
        """
        if position_of(message) is not None or not is_identified(message):
            return False
        yard: WorkerContext = self.app.taskyard
        reused = reuse_in(yard.records.read(job_id_of(message)), task_of(message))
        if reused is None:
            return False
        self._publish(message, None, PostOwnLetter(reused, None))
        return True

    def _publish(self, message: Any, stamp: Stamp | None, settlement: Settlement) -> None:
        """Publish what a message that reaches no task requires, for example its dead letter.

        Raises one of `PUBLISH_ERRORS`.
        """
        owing = Owing(self.app.taskyard, message, job_id_of(message), task_of(message), stamp)
        pending = pending_publication(settlement, owing)
        if pending is not None:
            pending.publish()

    def _delivered_too_often(self, message: Any) -> bool:
        """Count a redelivered message, and dead-letter it if it was delivered too often.

        So a message that kills its worker before `begin` ends too.
        """
        count = deliveries_over_limit(self.app.taskyard, message)
        if count is None:
            return False
        limit = self.app.taskyard.settings.delivery_limit
        self._die(message, delivered_too_often(count, limit))
        return True

    def _die(self, message: Any, outcome: Failed) -> None:
        """Record the death of a message, publish its dead letter, then acknowledge it.

        If that fails, the message returns to its queue.
        """
        self._watch_returns(message)
        yard: WorkerContext = self.app.taskyard
        item = str(job_id_of(message))
        try:
            dead_letter(yard, message, outcome)
        except (*PUBLISH_ERRORS, ValueError, TypeError) as error:
            wait_s = yard.backoff.failed(_LETTER, error, action="letter_failed", item=item)
            messages: Messages = self.app.taskyard.ports.messages
            give_back = partial(messages.give_back, self._bare(message), WayBack.UNCOUNTED)
            messages.hold(message, give_back, wait_s)
            return
        yard.backoff.succeeded(_LETTER, item)
        self._bare(message).acknowledge()
