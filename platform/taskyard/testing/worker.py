"""The worker of a yard in memory: it decides, publishes and acknowledges one message at a time."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from celery.exceptions import Ignore, Retry

from taskyard.deadletters import build_letter
from taskyard.errors import DeadLettered
from taskyard.jobs import Catalogue, JobType
from taskyard.jobs.attempt_outcomes import Failed, Failure
from taskyard.jobs.handler_registry import Registry
from taskyard.jobs.states import State
from taskyard.queues import fitting_priority
from taskyard.records import Reused
from taskyard.runner import Rules, death_causes, judge
from taskyard.runner.attempt_steps import Delivery
from taskyard.runner.reused_ids import reuse_death, reused_id
from taskyard.runner.settlement_rules import (
    Acknowledge,
    AwaitLease,
    DeferMessage,
    Delivered,
    End,
    ForwardMessage,
    GiveBack,
    ParkMessage,
    PostContinuations,
    PostLetter,
    PostOwnLetter,
    PublishRetry,
    ReturnHeld,
    deferred_stamp,
    log_without_letter,
    reported_end,
    settle,
)
from taskyard.runner.stored_decision import death_of, decide_for
from taskyard.testing.attempts import EagerRunner
from taskyard.testing.broker import MemoryBroker, Message
from taskyard.testing.faults import Faults, OvertimeKill, ProcessKilled, WorkerKilled
from taskyard.testing.letters import LetterShelf
from taskyard.testing.records import MemoryRecords
from taskyard.wire.celery_result import encoded_result
from taskyard.wire.stamp_header import Stamp

__all__ = ["MemoryWorker"]

WORKER: Final = "memory@test"


@dataclass
class MemoryWorker:
    """A worker in memory, which does what a worker's main process does around an attempt."""

    records: MemoryRecords
    broker: MemoryBroker
    letters: LetterShelf
    handlers: Registry
    catalogue: Catalogue
    rules: Rules
    runner: EagerRunner
    faults: Faults

    def serve(self, message: Message) -> None:
        """Process one delivery until it is acknowledged, or put its message back."""
        name = str(message.raw.headers.get("task"))
        if message.redelivered and self._too_often(message):
            return
        if name not in self.handlers:
            self._dead_letter(message, death_causes.unknown_task(name, WORKER))
        elif self._expired(message):
            self._dead_letter(message, death_causes.expired(message.raw.headers["expires"]))
        else:
            self._attempt(message, name)

    # -- the attempt ---------------------------------------------------------------------------

    def _attempt(self, message: Message, name: str) -> None:
        job_type = self._type_of(name)
        delivery = self._delivery(message, name, job_type)
        handler = self.faults.bind(self.handlers[name], message.job_id)
        args, kwargs, _ = json.loads(message.raw.body)
        try:
            self.faults.kill_before_begin(message.job_id)
            with self.runner.limits(job_type):
                encode = partial(encoded_result, message.job_id)
                self.runner.run(handler, delivery, args, kwargs, encode=encode, decode=_decode)
        except (Ignore, Retry, DeadLettered) as signal:
            end = reported_end(signal)
            if end is not None:
                self._conclude(message, end)
        except WorkerKilled:
            # No process is left to write to the record: the lease expires, the broker redelivers.
            self.broker.put_back(message)
        except OvertimeKill as killed:
            self._judge_overtime(message, delivery, killed)
        except ProcessKilled as killed:
            evidence = str(killed)
            answer = self.records.attempts.lose(message.job_id, delivery.holder, evidence)
            self._conclude(message, answer, lost=evidence)

    def _delivery(self, message: Message, name: str, job_type: JobType | None) -> Delivery:
        return Delivery(
            job_id=message.job_id,
            job_type=name,
            queue=message.queue,
            stamp=_stamp(message),
            holder=uuid.uuid4().hex,
            process=WORKER,
            worker=WORKER,
            time_limit_s=None if job_type is None else job_type.time_limit_s,
        )

    def _type_of(self, name: str) -> JobType | None:
        # `Mapping.get` expects a KeyError, but a catalogue raises its own error.
        if name not in self.catalogue:
            return None
        return self.catalogue[name]

    # -- what the main process decides ---------------------------------------------------------

    def _too_often(self, message: Message) -> bool:
        limit = self.records.settings.delivery_limit
        count = self.records.attempts.deliver(message.job_id)
        if count <= limit:
            return False
        self._dead_letter(message, death_causes.delivered_too_often(count, limit))
        return True

    def _expired(self, message: Message) -> bool:
        expires, now = message.raw.headers.get("expires"), self.runner.steps.clock.now()
        return expires is not None and now > datetime.fromisoformat(expires)

    def _dead_letter(self, message: Message, outcome: Failed) -> None:
        answer = self.records.attempts.dead_letter(
            message.job_id,
            _stamp(message),
            job_type=str(message.raw.headers.get("task")),
            queue=message.queue,
            **death_of(outcome),
        )
        self._conclude(message, answer, outcome)

    def _judge_overtime(self, message: Message, delivery: Delivery, killed: OvertimeKill) -> None:
        """Judge a kill at the hard time limit: it is a handler's outcome, so the policy decides."""
        text = f"hard time limit exceeded: TimeLimitExceeded({killed.limit_s:g},)"
        failure = Failure("timeout", "TimeLimitExceeded", text, "", "")
        record = self.records.read(message.job_id)
        override = None if delivery.stamp is None else delivery.stamp.policy
        policy = self.rules.policy(delivery.job_type, override)
        outcome = judge(failure, record.number("attempts") + 1, policy, self.rules.rng)
        finish, job_id = self.records.attempts.finish, message.job_id
        answer = decide_for(finish, record, outcome, job_id=job_id, holder=delivery.holder)
        self._conclude(message, answer)

    # -- what an end obliges to -----------------------------------------------------------------

    def _conclude(  # noqa: C901 - one match, one answer a case
        self, message: Message, end: End, outcome: Failed | None = None, *, lost: str = ""
    ) -> None:
        stamp, job_id = _stamp(message), message.job_id
        match settle(end, Delivered(job_id, stamp, outcome, lost, message.redelivered)):
            case PublishRetry(again, due_us):
                self._publish(message, again.moved(seq=again.seq, sent_us=due_us), due_us)
            case DeferMessage(wait_us):
                now_us = self.broker_now_us
                kept = deferred_stamp(stamp, self.records.read(job_id), now_us)
                self._publish(message, kept, now_us + wait_us)
            case ForwardMessage(queue, moved):
                self._forward(message, queue, moved)
            case AwaitLease(wait_us):
                self.broker.keep_until(message, self.broker_now_us + wait_us)
            case PostLetter():
                self._post(message, job_id)
            case PostOwnLetter(reused, besides):
                self._post_own(message, reused, besides)
            case PostContinuations(died_of):
                # Nothing here publishes continuations.
                log_without_letter(job_id, State.COMPLETED, died_of)
            case Acknowledge():
                return
            case GiveBack():
                self.broker.put_back(message)
            case ReturnHeld():
                self.broker.return_held(message)
            case ParkMessage(switch):
                self._park(message, str(switch.field))

    def _publish(self, message: Message, stamp: Stamp, due_us: int) -> None:
        record = self.records.read(message.job_id)
        priority = record.fields.get("priority")
        place: dict[str, Any] = {
            "queue": record.queue or message.queue,
            "priority": int(priority) if priority else None,
            "job_id": message.job_id,
            "stamp": stamp,
        }
        if due_us <= self.broker_now_us:
            self.broker.publish(message.raw, strip=("eta",), **place)
        else:
            self.broker.publish_later(message.raw, due_us=due_us, **place)

    def _park(self, message: Message, switch: str) -> None:
        job_id, now_us = message.job_id, self.broker_now_us
        record = self.records.read(job_id)
        priority = record.fields.get("priority")
        self.broker.park(
            message.raw,
            queue=record.queue or message.queue,
            priority=int(priority) if priority else None,
            job_id=job_id,
            stamp=deferred_stamp(_stamp(message), record, now_us),
            switch=switch,
        )

    def _forward(self, message: Message, queue: str, stamp: Stamp) -> None:
        job_id, now_us = message.job_id, self.broker_now_us
        priority = self.records.read(job_id).fields.get("priority")
        known = self.broker.settings.queue(queue)
        self.broker.publish(
            message.raw,
            queue=queue,
            priority=fitting_priority(int(priority) if priority else None, known),
            job_id=job_id,
            stamp=stamp.moved(seq=stamp.seq, sent_us=now_us),
            strip=("eta",),
        )
        self.records.requeued(job_id, stamp.epoch, stamp.generation)

    @property
    def broker_now_us(self) -> int:
        """Return the yard's time in microseconds."""
        return self.records.now_us()

    def _post_own(self, message: Message, reused: Reused, outcome: Failed | None) -> None:
        name = str(message.raw.headers.get("task"))
        job_id = reused_id(message.job_id, name, reused.epoch)
        death = reuse_death(message.job_id, name, reused, outcome)
        self.records.attempts.dead_letter(
            job_id, None, job_type=name, queue=message.queue, **death_of(death)
        )
        self._post(message, job_id)

    def _post(self, message: Message, job_id: str) -> None:
        record = self.records.read(job_id)
        if record.state is State.DEAD_LETTERED:
            self.letters.post(build_letter(record, message.raw))


def _stamp(message: Message) -> Stamp | None:
    try:
        return Stamp.read(message.raw.headers)
    except ValueError:
        return None


def _decode(meta: bytes) -> Any:
    return json.loads(meta)["result"]
