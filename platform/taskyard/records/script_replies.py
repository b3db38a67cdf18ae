"""The scripts' answers as values; times in microseconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from taskyard.jobs.attempt_outcomes import Decision
from taskyard.jobs.states import State
from taskyard.switches import Mode, SwitchField, SwitchScope

__all__ = [
    "OWN_ID",
    "Admission",
    "Admitted",
    "BeginAnswer",
    "CancelRequested",
    "DeadLetterAnswer",
    "Decided",
    "Done",
    "Ended",
    "EndedAttempt",
    "Finished",
    "Forward",
    "Held",
    "LeaseEnd",
    "NotHeld",
    "Publication",
    "Replayed",
    "ReplyTo",
    "Requeue",
    "Reused",
    "Run",
    "Stale",
    "Superseded",
    "Switched",
    "UnadmittedJob",
    "UnknownHistory",
    "VerbApplied",
    "VerbRefused",
    "WithoutRun",
]


@dataclass(frozen=True, slots=True)
class Admitted:
    """The record of an enqueued job; `created` is False if the id had a record already.

    `published` says whether the broker has confirmed the first message of this epoch.
    """

    created: bool
    state: State
    epoch: int
    generation: int
    seq: int
    published: bool


@dataclass(frozen=True, slots=True)
class Publication:
    """A first message that the admission script itself publishes.

    The message is `head` + epoch + `tail`, and goes to `list_key`. With `delay_s` over 0 it goes to
    the delay store instead, under the two keys. Without a `list_key` no message is published, and
    the record keeps `head` until the broker has confirmed the message.
    """

    list_key: str
    head: str
    tail: str
    delayed_key: str
    messages_key: str
    delay_s: float


@dataclass(frozen=True, slots=True)
class UnadmittedJob:
    """A job that its producer has published, or tried to publish, without its admission.

    `queue` is empty if only the broker knows the queue.
    """

    job_id: str
    job_type: str
    queue: str


@dataclass(frozen=True, slots=True)
class ReplyTo:
    """Where a job's service waits for a reply, and the id by which it recognises the reply."""

    queue: str
    correlation_id: str


OWN_ID: Final = "-"


@dataclass(frozen=True, slots=True)
class Admission:
    """One job to admit; see `Records.admit`.

    `call` names one call of the caller. A repeat with the same name gets `created` again, whatever
    has happened to the job since. Without a name, every repeat counts as another call; use `OWN_ID`
    if the id itself was made for the call. The record keeps `reply` for the end by an operator.
    `refusable` is False for a job that was published already: no kill switch refuses its record.
    """

    job_id: str
    job_type: str
    queue: str
    priority: int
    unique_for_s: float
    publication: Publication | None
    call: str = ""
    reply: ReplyTo | None = None
    refusable: bool = True


@dataclass(frozen=True, slots=True)
class Run:
    """The attempt may run.

    `attempt` counts from 1; `attempts` are the outcomes of earlier attempts.
    """

    attempt: int
    token: int
    epoch: int
    generation: int
    seq: int
    attempts: int
    cancel: str


@dataclass(frozen=True, slots=True)
class Done:
    """The job completed before; `meta` is the stored Celery result, None if it has expired."""

    meta: bytes | None


@dataclass(frozen=True, slots=True)
class Decided:
    """The attempt was decided before.

    Publish again what `decision` requires, then acknowledge the message.
    """

    decision: Decision
    seq: int
    due_us: int
    epoch: int
    generation: int


@dataclass(frozen=True, slots=True)
class Held:
    """Another attempt has the lease for another `remaining_us` microseconds."""

    remaining_us: int


@dataclass(frozen=True, slots=True)
class Stale:
    """The message is older than the record: acknowledge it."""

    state: State


@dataclass(frozen=True, slots=True)
class Ended:
    """An operator ended the job: acknowledge the message."""

    state: State


@dataclass(frozen=True, slots=True)
class Forward:
    """An operator has moved the job: publish its message to `queue`, then acknowledge this one.

    The position is that of the message in its new queue.
    """

    queue: str
    epoch: int
    generation: int
    seq: int


@dataclass(frozen=True, slots=True)
class UnknownHistory:
    """There is no record, and the message is too old to know whether it ran before."""


@dataclass(frozen=True, slots=True)
class Reused:
    """The id belongs to another job: its type is `job_type`, its epoch is `epoch`."""

    job_type: str
    state: State
    epoch: int


@dataclass(frozen=True, slots=True)
class Switched:
    """A switch keeps the job from running; nothing is counted, and the record stays as it was.

    `until_us` is when the switch ends by itself, 0 for never. `mode` is what it does.
    """

    field: SwitchField
    until_us: int
    mode: Mode

    @property
    def holds_queue(self) -> bool:
        """Return whether the switch holds all of the message's queue, so that none is taken."""
        return self.mode is Mode.HOLD and self.field.scope in (SwitchScope.QUEUE, SwitchScope.ALL)


WithoutRun = Done | Decided | Held | Stale | Ended | Forward | UnknownHistory | Reused | Switched
BeginAnswer = Run | WithoutRun
DeadLetterAnswer = Decided | Held | Stale | Ended | Forward | Reused


@dataclass(frozen=True, slots=True)
class Finished:
    """The decision is recorded. `due_us` is 0 except for a retry."""

    state: State
    version: int
    seq: int
    due_us: int
    decided_us: int


@dataclass(frozen=True, slots=True)
class Superseded:
    """Another process decided first; nothing was recorded."""

    state: State
    version: int


@dataclass(frozen=True, slots=True)
class Requeue:
    """The attempt ended without a decision; its message returns to the queue."""

    state: State


@dataclass(frozen=True, slots=True)
class NotHeld:
    """The delivery holds no attempt of the job, so it cannot end one."""

    state: State


LeaseEnd = Requeue | NotHeld | Decided | Ended | Forward


@dataclass(frozen=True, slots=True)
class Replayed:
    """The next generation is open.

    `already`: the same request had opened it before.
    """

    generation: int
    seq: int
    already: bool
    now_us: int


class EndedAttempt(StrEnum):
    """How the attempt ran that had not ended when an operator's verb ended its job."""

    NONE = ""
    """No attempt ran."""
    PROTECTED = "protected"
    OBSERVED = "observed"
    """A worker only observes the attempt, so nothing can stop it."""


@dataclass(frozen=True, slots=True)
class VerbApplied:
    """An operator's verb has changed the record, now or, if `already`, before.

    `worker` and `token` name the job's last attempt; they are empty and 0 if it had none. `letter`
    says whether the job has a dead letter, which must be closed with it. `attempt` is the attempt
    that had not ended. `reply` is where the job's service waits for a reply; None if nowhere, and
    if another request has ended the job. `seq` completes the position of the job's last message.
    """

    state: State
    epoch: int
    generation: int
    version: int
    already: bool
    worker: str
    token: int
    letter: bool
    attempt: EndedAttempt = EndedAttempt.NONE
    reply: ReplyTo | None = None
    seq: int = 0


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """The attempt with `token` at `worker` is asked to stop; the job is cancelled when it ends.

    If it ends with a result before that, the job is completed. `lease_until_us` is when the lease
    ends if the worker does not renew it.
    """

    epoch: int
    generation: int
    version: int
    already: bool
    worker: str
    token: int
    lease_until_us: int


@dataclass(frozen=True, slots=True)
class VerbRefused:
    """The verb has changed nothing.

    `why` is `state` if the table has no such row, or the part of the position (`epoch`,
    `generation` or `version`) that differs from what the operator saw. A reroute has more reasons,
    see `taskyard.jobs.verb_refusals`.
    """

    why: str
    state: State
    epoch: int
    generation: int
    version: int
