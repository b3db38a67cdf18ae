"""Every error Taskyard raises: one base, one class for each thing a caller can do differently.

A message says what was expected, what came and what to do next; the facts are attributes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Self

__all__ = [
    "CodedError",
    "CredentialRefused",
    "DeadLettered",
    "DuplicateName",
    "GateClosed",
    "InvalidPayload",
    "InvalidReason",
    "InvalidRights",
    "InvalidSettings",
    "InvalidSwitch",
    "JobFailed",
    "KillSwitchOn",
    "LeaseLost",
    "MissingSetting",
    "NotFound",
    "NotPermitted",
    "NotReplicated",
    "NotSupportedByPool",
    "PayloadTooLarge",
    "PublishFailed",
    "PurgeStopped",
    "Refused",
    "ResultTimeout",
    "SchemaMismatch",
    "ServerRefused",
    "ServerUnreachable",
    "TaskyardError",
    "TokenRefused",
    "TransitionRefused",
    "UnknownJobType",
    "UnknownPriority",
    "UnknownQueue",
    "UnreadableCopy",
    "Unroutable",
    "UnsupportedCelery",
]


_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
# Of a million positions in a call's list a text names the first few groups.
_GROUPS_NAMED = 10


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _moment(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _requests_text(positions: Iterable[int]) -> str:
    """Return positions, from 0, as text that counts from 1: `requests 1 to 50 and 53`."""
    groups: list[list[int]] = []
    for position in positions:
        if groups and position == groups[-1][1] + 1:
            groups[-1][1] = position
        else:
            groups.append([position, position])
    texts = [str(a + 1) if a == b else f"{a + 1} to {b + 1}" for a, b in groups[:_GROUPS_NAMED]]
    rest = sum(b - a + 1 for a, b in groups[_GROUPS_NAMED:])
    texts += [f"{rest} more"] if rest else []
    noun = "request" if sum(b - a + 1 for a, b in groups) == 1 else "requests"
    return f"{noun} {' and '.join(filter(None, [', '.join(texts[:-1]), texts[-1]]))}"


class TaskyardError(Exception):
    """Base of every error that Taskyard raises on purpose; its text can be shown to a user."""

    exit_code = 1


class InvalidSettings(TaskyardError):
    """A setting, a policy file or a job type file has a value that cannot be used."""

    exit_code = 2


class MissingSetting(InvalidSettings):
    """A URL or another required setting is absent; `variable` names it."""

    def __init__(self, variable: str, purpose: str, remedy: str) -> None:
        self.variable = variable
        super().__init__(f"{variable} is not set: it names {purpose}. {remedy}")


class ServerUnreachable(TaskyardError):
    """A broker, Redis or Postgres did not answer; `role` says which, `url` is redacted."""

    exit_code = 3

    def __init__(self, role: str, url: str, cause: object, remedy: str) -> None:
        self.role, self.url, self.cause = role, url, cause
        super().__init__(f"{role} at {url} does not answer ({cause}). {remedy}")


class ServerRefused(TaskyardError):
    """A server refuses a request: it is full, read-only, or the user lacks a permission."""

    exit_code = 3

    def __init__(
        self,
        role: str,
        url: str,
        cause: object,
        remedy: str = "Nothing was done; to find the cause, run: taskyard check",
    ) -> None:
        self.role, self.url, self.cause = role, url, cause
        super().__init__(f"{role} at {url} refused: {cause}. {remedy}")


class SchemaMismatch(TaskyardError):
    """The database's schema is not the one this version expects."""

    exit_code = 3


class UnknownJobType(TaskyardError):
    """The job type is not defined."""

    exit_code = 2


class UnsupportedCelery(TaskyardError):
    """The installed Celery is too old."""

    exit_code = 2


class UnknownQueue(TaskyardError):
    """The queue is not configured."""

    exit_code = 2


class UnknownPriority(TaskyardError):
    """The priority is outside the queue's range."""

    exit_code = 2


class DuplicateName(InvalidSettings):
    """Two handlers or two definitions claim one job type."""


class InvalidPayload(TaskyardError):
    """A payload does not fit its job type's model, or it is not JSON."""

    exit_code = 2


class PayloadTooLarge(InvalidPayload):
    """A payload is over `max_payload_bytes`."""


class NotFound(TaskyardError):
    """No job, dead letter or other thing with this name exists."""

    exit_code = 4


class Refused(TaskyardError):
    """An operator verb cannot be applied to this job or dead letter in its present state."""

    exit_code = 5


class InvalidReason(Refused):
    """The reason of an operator verb is missing, too short, too general or hides text."""

    exit_code = 2


class InvalidRights(Refused):
    """The subject or the rights of a token or a grant are invalid."""

    exit_code = 2


class InvalidSwitch(Refused):
    """A pause or a kill switch cannot have this scope, name, mode or end."""

    exit_code = 2


class PurgeStopped(TaskyardError):
    """A purge has stopped in the middle; `done` counts what it did, `queue` names the queue."""

    exit_code = 3

    def __init__(self, queue: str, cause: object, done: Mapping[str, object]) -> None:
        self.queue, self.done = queue, done
        super().__init__(
            f"the purge of queue {queue!r} stopped: {cause}. Until then {done['cancelled']} jobs "
            f"were cancelled and {done['removed']} messages removed; a worker skips the message of "
            f"a cancelled job. Then run it again: taskyard queues purge {queue}"
        )


class GateClosed(TaskyardError):
    """Redis or Postgres was restored; operators' requests wait until an operator accepts that."""

    exit_code = 5


class KillSwitchOn(TaskyardError):
    """A kill switch is on for the job's type, queue or domain, or for all: it is not enqueued.

    `field` names the switch, for example `kill queue:plan`, `reason` is the operator's. `since` and
    `until` are aware; None if they are unknown, or the switch has no end. `retry_after` is in whole
    seconds, as HTTP's Retry-After: until the end, or `AGAIN_S` if there is none. `requests` are the
    positions in the call's list, from 0, of all jobs that are refused; `job_ids` names the others,
    which are enqueued, in their order. `others` are the further switches of these refusals.
    """

    exit_code = 5
    AGAIN_S = 30

    def __init__(
        self,
        field: str,
        *,
        reason: str,
        since: datetime | None,
        until: datetime | None,
        retry_after: int,
        requests: Sequence[int] = (0,),
        job_ids: Sequence[str] = (),
        others: Sequence[str] = (),
    ) -> None:
        self.field, self.reason, self.since, self.until = field, reason, since, until
        self.retry_after = retry_after
        self.requests, self.job_ids = tuple(requests), tuple(job_ids)
        self.others = tuple(others)
        super().__init__(f"{self._refused()}{self._switch()}. {self._next()}")

    @classmethod
    def of_call(cls, refused: Mapping[int, Self], job_ids: Sequence[str]) -> Self:
        """Return one error for the refusals of a call, by position; it names the longest wait."""
        longest = max(refused.values(), key=lambda error: error.retry_after)
        fields = dict.fromkeys(error.field for error in refused.values())
        return cls(
            longest.field,
            reason=longest.reason,
            since=longest.since,
            until=longest.until,
            retry_after=longest.retry_after,
            requests=sorted(refused),
            job_ids=job_ids,
            others=[field for field in fields if field != longest.field],
        )

    def _refused(self) -> str:
        if self.requests == (0,) and not self.job_ids:
            return "the job is not enqueued: "
        are = "is" if len(self.requests) == 1 else "are"
        text = f"{_requests_text(self.requests)} of the call {are} not enqueued"
        count = len(self.job_ids)
        rest = f", the {'other is' if count == 1 else f'other {count} are'}" if count else ""
        return f"{text}{rest}: "

    def _switch(self) -> str:
        name = f"the {self.field.replace('kill ', 'kill switch on ', 1)}"
        if self.since is None:
            return f"what Redis has for {name} cannot be read, so it counts as on"
        end = "without an end" if self.until is None else f"until {_moment(self.until)}"
        others = f". On are also: {', '.join(self.others)}" if self.others else ""
        reason = f"reason: {self.reason}" if self.reason else "no reason is stored"
        return f"{name} is on since {_moment(self.since)}, {end}; {reason}{others}"

    def _next(self) -> str:
        if self.since is None:
            return "To find the cause, run: taskyard check"
        them = "it" if len(self.requests) == 1 else "them"
        again = f"Enqueue {them} again in {self.retry_after} s"
        return again if self.until else f"{again}; it is refused until an operator lifts the switch"


class NotPermitted(TaskyardError):
    """The caller has no verified identity or lacks the right for a verb."""

    exit_code = 6


class CredentialRefused(NotPermitted):
    """A signed credential is invalid; `code` says why, a value of `access.Fault`."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class TokenRefused(NotPermitted):
    """A token does not identify its bearer; `code` says why, and no message holds its secret.

    Codes: `malformed`, `unknown` (no such id, or a wrong secret), `rotated`, `revoked`, `expired`.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class NotSupportedByPool(TaskyardError):
    """The worker's pool cannot do this; `act` says what, `pool` names the pool's class."""

    exit_code = 5

    def __init__(self, act: str, pool: str) -> None:
        self.act, self.pool = act, pool
        super().__init__(
            f"cannot {act}: this worker's pool is {pool}, which runs jobs in the worker's main "
            "process. Use the prefork pool (the default), or stop the worker"
        )


class TransitionRefused(TaskyardError):
    """The state table has no such transition; `state` and `event` say which."""

    exit_code = 5

    def __init__(self, state: str, event: str, allowed: str) -> None:
        self.state, self.event = state, event
        super().__init__(f"a job in state {state!r} does not take {event!r}; it takes: {allowed}.")


class PublishFailed(TaskyardError):
    """The broker did not confirm a publication, so no message may be acknowledged because of it."""

    exit_code = 3


class NotReplicated(PublishFailed):
    """Jobs are enqueued, but too few replicas confirmed them: a failover now could lose them.

    `job_ids` names these jobs, `unkeyed` those of them without an idempotency key. `requests` are
    the positions in the call's list, from 0, of all jobs that are not known to be replicated: first
    these jobs, in their order, then those that are `not_enqueued`, because the call ended before
    them or a kill switch refuses them. All others are confirmed.
    """

    def __init__(
        self,
        job_ids: Sequence[str],
        *,
        unkeyed: Sequence[str],
        confirmed: int,
        wanted: int,
        within_s: float,
        requests: Sequence[int] | None = None,
    ) -> None:
        self.job_ids, self.unkeyed = tuple(job_ids), tuple(unkeyed)
        self.confirmed, self.wanted, self.within_s = confirmed, wanted, within_s
        self.requests = tuple(range(len(self.job_ids)) if requests is None else requests)
        self.not_enqueued = self.requests[len(self.job_ids) :]
        one = len(self.job_ids) == 1
        jobs = "1 job is" if one else f"{len(self.job_ids)} jobs are"
        replicas = "1 replica" if wanted == 1 else f"{wanted} replicas"
        super().__init__(
            f"{jobs} enqueued, but within {within_s:g} s {confirmed} of {replicas} confirmed it: "
            f"a failover now could lose {'it' if one else 'them'}. {self._next()}{self._rest()}"
        )

    def within(self, requests: Sequence[int]) -> NotReplicated:
        """Return this error for a longer call, in whose list `requests` are the jobs' positions."""
        return NotReplicated(
            self.job_ids,
            unkeyed=self.unkeyed,
            confirmed=self.confirmed,
            wanted=self.wanted,
            within_s=self.within_s,
            requests=requests,
        )

    def of(self, job_id: str) -> NotReplicated:
        """Return the same error for one of the jobs, for the call that enqueued only this job."""
        return NotReplicated(
            [job_id],
            unkeyed=[job_id] if job_id in self.unkeyed else [],
            confirmed=self.confirmed,
            wanted=self.wanted,
            within_s=self.within_s,
        )

    def _next(self) -> str:
        again = (
            "Enqueue again with the same idempotency key: that waits again and creates no "
            "second job"
        )
        if not self.unkeyed:
            return again
        named = ", ".join(self.unkeyed)
        warning = (
            f"Do not enqueue jobs without an idempotency key again, they would run twice: "
            f"{named}. After a failover search them with: taskyard jobs show"
        )
        return warning if len(self.unkeyed) == len(self.job_ids) else f"{again}. {warning}"

    def _rest(self) -> str:
        """Return text about the other jobs in the call's list, counted from 1."""
        clauses = []
        confirmed = sorted(set(range(max(self.requests) + 1)).difference(self.requests))
        if confirmed:
            verb = "is" if len(confirmed) == 1 else "are"
            clauses.append(f"{_requests_text(confirmed)} of the call {verb} confirmed")
        if self.not_enqueued:
            verb, them = ("is", "it") if len(self.not_enqueued) == 1 else ("are", "them")
            text = _requests_text(self.not_enqueued)
            clauses.append(f"{text} {verb} not enqueued, enqueue {them}")
        return f". The {'; the '.join(clauses)}" if clauses else ""


class Unroutable(PublishFailed):
    """No queue takes a job's message or a dead letter, so the broker would drop it."""


class UnreadableCopy(TaskyardError):
    """The stored copy of a message or dead letter is damaged and cannot be published.

    `subject` names the copy.
    """

    def __init__(self, subject: str, cause: object) -> None:
        self.subject = subject
        super().__init__(f"the stored copy of {subject} cannot be read: {cause}")


class ResultTimeout(TaskyardError):
    """The job did not end within the time that the caller gave it."""

    exit_code = 7


class LeaseLost(TaskyardError):
    """Another attempt holds this job now; results of this attempt will not be recorded."""


class JobFailed(TaskyardError):
    """A job ended without a result: failed, cancelled or aborted; `state` says which."""

    exit_code = 8

    def __init__(self, job_id: str, state: str, detail: str = "") -> None:
        self.job_id, self.state, self.detail = job_id, state, detail
        super().__init__(job_id, state, detail)

    def __str__(self) -> str:
        """Return one line for a shell."""
        tail = f": {self.detail}" if self.detail else ""
        return f"job {self.job_id} is {self.state}{tail}"


class DeadLettered(TaskyardError):
    """A job failed for good and is in the dead letters under `dead_letter_id`.

    All its arguments are positional, so that a Celery result of any client rebuilds it.
    """

    exit_code = 8

    def __init__(self, dead_letter_id: str, code: str = "", detail: str = "") -> None:
        self.dead_letter_id, self.code, self.detail = dead_letter_id, code, detail
        super().__init__(dead_letter_id, code, detail)

    def __str__(self) -> str:
        """Return the cause, then the next command."""
        cause = f"{self.code}: {self.detail}" if self.code else "cause unknown"
        return f"dead-lettered ({cause}). See: taskyard dlq show {self.dead_letter_id}"


class CodedError(TaskyardError):
    """A failure for which a handler gives a `code`.

    The job type's retry policy decides by the code.

    `retry_after_s` (seconds) asks for a longer wait than the policy's; `details` must be JSON.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retry_after_s: float | None = None,
        details: dict[str, object] | None = None,
    ) -> None:
        if not _CODE.fullmatch(_as_text(code)):
            raise ValueError(f"code must be a word of at most 100 characters, got {code!r:.60}")
        self._check_details(details)
        self.code, self.message = code, message
        self.retry_after_s = retry_after_s
        self.details = {} if details is None else details
        super().__init__(message)

    @staticmethod
    def _check_details(details: object) -> None:
        if details is not None and not isinstance(details, dict):
            raise TypeError(f"details must be a dict, got {type(details).__name__}")
