"""The worker of a yard in memory: decides, publishes, acknowledges, one message at a time."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from taskyard.deadletters import build_letter
from taskyard.errors import DeadLettered
from taskyard.jobs import Catalogue, Category, JobType
from taskyard.jobs.outcomes import Decision, Failed, Failure
from taskyard.jobs.registry import Registry
from taskyard.jobs.states import State
from taskyard.records import Decided, Held
from taskyard.runner import JobDeferred, JobRetrying, JobSkipped, Rules, judge
from taskyard.runner.cause import death_of, decide_for, plain_failure
from taskyard.runner.pipeline import Delivery
from taskyard.testing.attempts import EagerRunner
from taskyard.testing.broker import MemoryBroker, Message
from taskyard.testing.fate import Fates, OvertimeKill, ProcessKilled, WorkerKilled
from taskyard.testing.letters import LetterShelf
from taskyard.testing.records import MemoryRecords
from taskyard.wire.headers import Stamp

__all__ = ["MemoryWorker"]

WORKER: Final = "memory@test"


@dataclass
class MemoryWorker:
    """What a worker's main process does around the pipeline of one attempt."""

    records: MemoryRecords
    broker: MemoryBroker
    letters: LetterShelf
    handlers: Registry
    catalogue: Catalogue
    rules: Rules
    runner: EagerRunner
    fates: Fates

    def serve(self, message: Message) -> None:
        """Bring one delivery to its acknowledgement, or put its message back."""
        name = str(message.raw.headers.get("task"))
        if message.redelivered and self._too_often(message):
            return
        if name not in self.handlers:
            text = f"no handler for {name!r} on this worker; deploy one, or reroute the job"
            self._condemn(
                message, plain_failure(Category.UNKNOWN_TASK, "unknown_task", "NotRegistered", text)
            )
        elif self._expired(message):
            text = f"the message expired at {message.raw.headers['expires']}"
            self._condemn(message, plain_failure(Category.EXPIRED, "expired", "Expired", text))
        else:
            self._attempt(message, name)

    # -- the attempt ---------------------------------------------------------------------------

    def _attempt(self, message: Message, name: str) -> None:
        job_type = self._type_of(name)
        delivery = self._delivery(message, name, job_type)
        handler = self.fates.bind(self.handlers[name], message.job_id)
        args, kwargs, _ = json.loads(message.raw.body)
        try:
            self.fates.strike_before_begin(message.job_id)
            with self.runner.limits(job_type):
                encode = partial(_encode, message.job_id)
                self.runner.run(handler, delivery, args, kwargs, encode=encode, decode=_decode)
        except JobRetrying as retry:
            self._retry(message, retry.epoch, retry.generation, retry.seq, retry.due_us)
        except JobDeferred as deferred:
            self._await_lease(message, deferred.wait_us)
        except DeadLettered:
            self._post(message)
        except JobSkipped:
            return
        except WorkerKilled:
            # Nobody is left to tell the record: the lease runs out, the broker delivers again.
            self.broker.put_back(message)
        except OvertimeKill as killed:
            self._judge_overtime(message, delivery, killed)
        except ProcessKilled as killed:
            answer = self.records.lose(message.job_id, delivery.holder, str(killed))
            self._settle(message, answer if isinstance(answer, Decided) else None)

    def _delivery(self, message: Message, name: str, job_type: JobType | None) -> Delivery:
        return Delivery(
            job_id=message.job_id,
            job_type=name,
            queue=message.queue,
            priority=None,
            stamp=_stamp(message),
            holder=uuid.uuid4().hex,
            process=WORKER,
            worker=WORKER,
            time_limit_s=None if job_type is None else job_type.time_limit_s,
        )

    def _type_of(self, name: str) -> JobType | None:
        # `Mapping.get` wants a KeyError, a catalogue raises its own error.
        if name not in self.catalogue:
            return None
        return self.catalogue[name]

    # -- what the main process decides ---------------------------------------------------------

    def _too_often(self, message: Message) -> bool:
        limit = self.records.settings.delivery_limit
        count = self.records.deliver(message.job_id)
        if count <= limit:
            return False
        text = f"deliveries reached {count}, the limit is {limit}"
        evidence: dict[str, object] = {"counter": "deliveries", "count": count, "limit": limit}
        self._condemn(
            message, plain_failure(Category.POISON, "poison", "PoisonJob", text, evidence)
        )
        return True

    def _expired(self, message: Message) -> bool:
        expires = message.raw.headers.get("expires")
        return expires is not None and self.runner.clock.now() > datetime.fromisoformat(expires)

    def _condemn(self, message: Message, outcome: Failed) -> None:
        answer = self.records.condemn(
            message.job_id,
            _stamp(message),
            job_type=str(message.raw.headers.get("task")),
            queue=message.queue,
            priority=None,
            **death_of(outcome),
        )
        match answer:
            case Decided():
                self._settle(message, answer)
            case Held(remaining_us):
                self._await_lease(message, remaining_us)
            case _:
                return

    def _judge_overtime(self, message: Message, delivery: Delivery, killed: OvertimeKill) -> None:
        """Killed for overtime is a handler's outcome, so the policy decides."""
        text = f"hard time limit exceeded: TimeLimitExceeded({killed.limit_s:g},)"
        failure = Failure("timeout", "TimeLimitExceeded", text, "", "")
        record = self.records.read(message.job_id)
        override = None if delivery.stamp is None else delivery.stamp.policy
        policy = self.rules.policy(delivery.job_type, override)
        outcome = judge(failure, record.number("attempts") + 1, policy, self.rules.rng)
        finish, job_id = self.records.finish, message.job_id
        decided = decide_for(finish, record, outcome, job_id=job_id, holder=delivery.holder)
        if decided is None:
            self.broker.put_back(message)
        else:
            self._settle(message, decided)

    # -- what a decision obliges to ------------------------------------------------------------

    def _settle(self, message: Message, decided: Decided | None) -> None:
        if decided is None:
            self.broker.put_back(message)
        elif decided.decision is Decision.RETRYING:
            place = decided.epoch, decided.generation, decided.seq
            self._retry(message, *place, decided.due_us)
        else:
            self._post(message)

    def _retry(self, message: Message, epoch: int, generation: int, seq: int, due_us: int) -> None:
        own = _stamp(message)
        policy = None if own is None else own.policy
        stamp = Stamp(epoch, generation, seq, sent_us=due_us, policy=policy)
        self._publish(message, stamp, due_us)

    def _await_lease(self, message: Message, wait_us: int) -> None:
        """Until another attempt's lease is over; what came back keeps its place in the queue."""
        now_us = self.broker_now_us
        if message.redelivered:
            self.broker.keep_until(message, now_us + wait_us)
            return
        stamp = _stamp(message) or Stamp(self.records.read(message.job_id).epoch)
        kept = stamp.moved(seq=stamp.seq, sent_us=stamp.sent_us or stamp.epoch)
        self._publish(message, kept, now_us + wait_us)

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

    @property
    def broker_now_us(self) -> int:
        """The yard's time."""
        return self.records.now_us()

    def _post(self, message: Message) -> None:
        record = self.records.read(message.job_id)
        if record.state is State.DEAD_LETTERED:
            self.letters.post(build_letter(record, message.raw))


def _stamp(message: Message) -> Stamp | None:
    try:
        return Stamp.read(message.raw.headers)
    except ValueError:
        return None


def _encode(job_id: str, value: Any) -> bytes:
    """As a worker stores it: as long, and as strict about what JSON has no word for."""
    date = datetime.now(UTC).isoformat()
    meta = {"status": "SUCCESS", "result": value, "traceback": None, "children": []}
    return json.dumps({**meta, "date_done": date, "task_id": job_id}, allow_nan=False).encode()


def _decode(meta: bytes) -> Any:
    return json.loads(meta)["result"]
