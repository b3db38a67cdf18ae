"""The record scripts as methods; each is one round trip and gives the same answer when repeated."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import redis
from redis.exceptions import RedisError, ResponseError

from taskyard.clock import redis_time_us, us_of
from taskyard.errors import KillSwitchOn, Refused
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.jobs.states import Event, State
from taskyard.records.attempt_stops import AttemptStops
from taskyard.records.bulk_admission import Admissions, Upcoming, record_publications
from taskyard.records.bulk_states import End, read_ends, read_many, read_states
from taskyard.records.job_keys import Keys
from taskyard.records.job_record import Record
from taskyard.records.operator_verbs import OperatorVerbs
from taskyard.records.parse_replies import parse_begin, parse_decided, parse_forward
from taskyard.records.script_calls import ReplayCall, ScriptCall, ScriptCalls
from taskyard.records.script_replies import (
    Admission,
    Admitted,
    BeginAnswer,
    DeadLetterAnswer,
    Ended,
    Finished,
    Forward,
    LeaseEnd,
    NotHeld,
    Publication,
    Replayed,
    ReplyTo,
    Requeue,
    Superseded,
    UnadmittedJob,
)
from taskyard.records.script_source import VERBS, script_source
from taskyard.settings import Settings
from taskyard.store import Argument, Script, named
from taskyard.wire.stamp_header import Stamp

__all__ = ["Records", "no_domain"]


def no_domain(_job_type: str) -> str:
    """Return the empty domain for every job type."""
    return ""


class Records:
    """The records of one namespace.

    `keys` are needed if the key names differ from those of `Keys`. `domain_of` returns the domain
    that owns a job type, empty for none: records and events have it as a field.
    """

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        keys: Keys | None = None,
        *,
        domain_of: Callable[[str], str] = no_domain,
    ) -> None:
        self.client = client
        self.settings = settings
        self.keys = Keys(settings.namespace) if keys is None else keys
        self._window_us = us_of(settings.dedupe_window_s)
        self._scripts = {name: Script(self._source(name)) for name in _NAMES}
        self._domain_of = domain_of
        self._calls = ScriptCalls(client, self.keys, self._scripts)
        self.verbs = OperatorVerbs(self._calls, self.keys.kept_result)
        self.stops = AttemptStops(client, settings.namespace)
        self._admissions = Admissions(
            client, settings, self.keys, self._scripts["admit"], domain_of
        )

    def _source(self, name: str) -> str:
        return script_source(name, self.settings)

    def admit(
        self,
        job_id: str,
        *,
        job_type: str,
        queue: str,
        priority: int,
        unique_for_s: float,
        publication: Publication | None = None,
        call: str = "",
        reply: ReplyTo | None = None,
        refusable: bool = True,
    ) -> Admitted:
        """Return the record of a new job, or the record that its id already has.

        With a `publication`, the same script also publishes the message of a job that it creates;
        this needs records and broker in one Redis. The record keeps `reply` for the end by an
        operator. Raises `KillSwitchOn` for a new job that is `refusable`.
        """
        job = Admission(
            job_id, job_type, queue, priority, unique_for_s, publication, call, reply, refusable
        )
        answer = self.admit_many([job])[0]
        if isinstance(answer, KillSwitchOn):
            raise answer
        return answer

    def admit_many(self, jobs: Sequence[Admission]) -> list[Admitted | KillSwitchOn]:
        """Admit many jobs as `admit` does; return the answers in the jobs' order.

        The answer to a job that a kill switch refuses is its error.
        """
        return self._admissions.many(jobs)

    def admit_ahead(self, jobs: Iterable[Admission]) -> Generator[list[Admitted | KillSwitchOn]]:
        """Admit any number of jobs as `admit_many` does, and yield the answers in order.

        Each script has 50 jobs.
        Redis works on some jobs while the next are taken from `jobs`. Close the iterator if you
        stop early.
        """
        return self._admissions.ahead(jobs)

    def admit_each(
        self, upcoming: Upcoming, scripts: int
    ) -> Generator[Sequence[Admitted | Exception]]:
        """Admit jobs of many callers: each caller gets its own answer, or its own error.

        `upcoming` gives the next job, or None if there is no job; see `Admissions.each`.
        """
        return self._admissions.each(upcoming, scripts)

    def record_publications(self, jobs: Sequence[UnadmittedJob], *, published: bool) -> int:
        """Create records of jobs that their producer has published itself, or failed to publish.

        A job that has a record, in whatever state, keeps that record. Returns how many records are
        new. The record of a failed publication expires after the dedupe window, unless its message
        arrives all the same. If a record's key has another type, the log names the key and the
        other records are written; raises `WrongKeyType` for a key that the records share.
        """
        script, window_ms = self._scripts["record_publication"], self._window_us // 1000
        return record_publications(
            self.client, script, self.keys, jobs, published=published, window_ms=window_ms
        )

    def confirm(self, job_id: str, epoch: int) -> None:
        """Note that the broker has confirmed the first message of this epoch."""
        self._call("confirm", job_id, [epoch])

    def confirm_many(self, lives: Sequence[tuple[str, int]]) -> list[RedisError | None]:
        """Note for many (job id, epoch) that the broker has confirmed their first message.

        This takes one round trip. Returns an error for each job that failed. Raises redis-py's
        error if the server is lost.
        """
        if len(lives) == 1:
            return [self._confirmed(*lives[0])]
        calls = [ScriptCall("confirm", job_id, [epoch]) for job_id, epoch in lives]
        answers = self._calls.each(calls)
        return [answer if isinstance(answer, RedisError) else None for answer in answers]

    def _confirmed(self, job_id: str, epoch: int) -> RedisError | None:
        try:
            self.confirm(job_id, epoch)
        except ResponseError as error:
            return error
        return None

    def begin(
        self,
        job_id: str,
        stamp: Stamp | None,
        *,
        holder: str,
        worker: str,
        job_type: str,
        queue: str,
        process: str = "",
    ) -> BeginAnswer:
        """Ask for the right to run one attempt.

        `holder` identifies the delivery, `process` the process that works on the delivery. A repeat
        by the same process with the same delivery gets the same answer. Another process with the
        same delivery takes over from a dead process. A switch that is on for the job, its queue,
        its type or its domain keeps it from running (`Switched`).
        """
        arguments = [
            *_position(stamp),
            holder,
            worker,
            us_of(self.settings.lease_s),
            self.settings.death_limit,
            self._window_us,
            0 if stamp is None or stamp.sent_us is None else stamp.sent_us,
            job_type,
            queue,
            process,
            0 if stamp is None else stamp.nesting,
            self._domain_of(job_type),
        ]
        keys = [*self.keys.script_keys(job_id), self.keys.switches]
        return parse_begin(self._call("begin", job_id, arguments, keys))

    def renew(self, job_id: str, token: int) -> tuple[bool, str]:
        """Renew the lease; return whether the attempt keeps it, and a detail.

        The detail is the request of an operator who cancels the attempt, or the state that ended
        the lease.
        """
        answer, detail = self._call("renew", job_id, [token, us_of(self.settings.lease_s)])
        return answer == b"kept", detail.decode()

    def progress(self, job_id: str, token: int, fraction: float, note: str) -> bool:
        """Write progress; return False if the attempt with this token no longer holds the job."""
        body = json.dumps({"fraction": fraction, "note": note})
        return bool(self._call("progress", job_id, [token, body]))

    def finish(
        self,
        job_id: str,
        decision: Decision,
        *,
        epoch: int,
        generation: int,
        seq: int,
        token: int | None = None,
        holder: str = "",
        result: bytes = b"",
        delay_s: float = 0,
        cause: bytes = b"",
        code: str = "",
        category: str = "",
        message: str = "",
        stopped: bool = False,
    ) -> Finished | Superseded | Forward:
        """Record the decision about the attempt that `token` (or the delivery `holder`) holds.

        If an operator has cancelled the attempt, the job is cancelled instead, unless the attempt
        returned a result without having `stopped` for the request.
        """
        arguments = [
            "" if token is None else token,
            holder,
            decision,
            epoch,
            generation,
            seq,
            result,
            self.settings.result_ttl_s * 1000,
            self._window_us,
            us_of(delay_s),
            cause,
            code,
            category,
            message,
            self.keys.result(job_id),
            "1" if stopped else "",
        ]
        raw = self._call("finish", job_id, arguments)
        if raw[0] == b"forward":
            return parse_forward(raw)
        if raw[0] == b"superseded":
            return Superseded(State(raw[1].decode()), int(raw[2]))
        return Finished(State(raw[1].decode()), *(int(value) for value in raw[2:6]))

    def release(self, job_id: str, holder: str) -> LeaseEnd:
        """End this delivery's attempt without a decision and without counting it (drain)."""
        return self._end(job_id, holder, Event.RELEASE, "")

    def lose(self, job_id: str, holder: str, evidence: str) -> LeaseEnd:
        """End this delivery's attempt because its process died.

        Too many deaths make a poison letter.
        """
        return self._end(job_id, holder, Event.LOSE, evidence)

    def _end(self, job_id: str, holder: str, event: Event, evidence: str) -> LeaseEnd:
        raw = self._call("release", job_id, [holder, event, self.settings.death_limit, evidence])
        match raw[0]:
            case b"decided":
                return parse_decided(raw)
            case b"requeue":
                return Requeue(State(raw[1].decode()))
            case b"ended":
                return Ended(State(raw[1].decode()))
            case b"forward":
                return parse_forward(raw)
            case _:
                return NotHeld(State(raw[1].decode()))

    def dead_letter(
        self,
        job_id: str,
        stamp: Stamp | None,
        *,
        job_type: str,
        queue: str,
        cause: bytes,
        code: str,
        category: str,
        message: str,
    ) -> DeadLetterAnswer:
        """Dead-letter a message about which no attempt could decide."""
        arguments: list[Argument] = [
            *_position(stamp),
            job_type,
            queue,
            cause,
            code,
            category,
            message,
            0 if stamp is None else stamp.nesting,
            self._domain_of(job_type),
        ]
        answer = parse_begin(self._call("dead_letter", job_id, arguments))
        if not isinstance(answer, DeadLetterAnswer):
            expected = "Decided, Held, Stale, Ended, Forward or Reused"
            raise TypeError(f"expected the script dead_letter to answer {expected}, got {answer!r}")
        return answer

    def requeued(self, job_id: str, epoch: int, generation: int) -> bool:
        """Note that the message of a rerouted job is in its new queue.

        Returns False if the message has begun there already, or the job has gone on otherwise.
        """
        return bool(self._call("requeued", job_id, [epoch, generation]))

    def deliver(self, job_id: str) -> int:
        """Count one more delivery of a redelivered message and return the count."""
        return int(self._call("deliver", job_id, [self._window_us // 1000]))

    def forget_deliveries(self, job_ids: Sequence[str]) -> None:
        """Set the deliveries of jobs back to 0, in one round trip; raises redis-py's errors."""
        self._calls.all([ScriptCall("forget_deliveries", job_id, []) for job_id in job_ids])

    def replay(
        self,
        *,
        job_id: str,
        epoch: int,
        generation: int,
        request_id: str,
        job_type: str,
        queue: str,
        priority: int | None,
    ) -> Replayed:
        """Open the generation after `generation`; raises `Refused` with the cause."""
        call = ReplayCall(job_id, epoch, generation, request_id, job_type, queue, priority)
        answer = call.parse(self._calls.one(call.script()))
        if isinstance(answer, Refused):
            raise answer
        return answer

    def replay_many(self, calls: Sequence[ReplayCall]) -> list[Replayed | Refused | RedisError]:
        """Open the next generations of many jobs in one round trip; return the calls' answers.

        An error stands for each call that failed. Raises redis-py's error if the server is lost.
        """
        answers = self._calls.each([call.script() for call in calls])
        return [
            answer if isinstance(answer, RedisError) else call.parse(answer)
            for call, answer in zip(calls, answers, strict=True)
        ]

    def result(self, job_id: str) -> bytes | None:
        """Return the stored Celery result; None if no result is stored (any more)."""
        return self._get(self.keys.result(job_id))

    def kept_result(self, job_id: str) -> bytes | None:
        """Return the record's copy of an installed app's result; None without a copy."""
        return self._get(self.keys.kept_result(job_id))

    def _get(self, key: str) -> bytes | None:
        raw = self.client.get(key)
        return raw.encode() if isinstance(raw, str) else raw

    def now_us(self) -> int:
        """Return Redis's time; all times in records are Redis's."""
        return redis_time_us(self.client.time())

    def read(self, job_id: str) -> Record:
        """Return the record; state `none` if there is none."""
        key = self.keys.record(job_id)
        try:
            raw = self.client.hgetall(key)
        except ResponseError as error:
            raise named(self.client, error, {key: "hash"}) from None
        fields = {_text(name): _text(value) for name, value in raw.items()}
        return Record(job_id, fields)

    def states(self, job_ids: Sequence[str]) -> list[tuple[State, str] | RedisError]:
        """Return (state, job type) of many jobs in one round trip.

        An error for each that failed.
        """
        return read_states(self.client, self.keys, job_ids)

    def read_many(self, job_ids: Sequence[str]) -> list[Record | RedisError]:
        """Return the records of many jobs in one round trip; an error for each that failed."""
        return read_many(self.client, self.keys, job_ids)

    def note_gone_many(self, lives: Sequence[tuple[str, int]]) -> None:
        """Note for many (job id, epoch) that no worker will see their message any more.

        The record of a job that an operator has ended then lasts as usual, and no longer until its
        message comes. Raises redis-py's errors.
        """
        self._calls.all([ScriptCall("message_gone", job_id, [epoch]) for job_id, epoch in lives])

    def ends(self, job_ids: Sequence[str]) -> list[End]:
        """Return record and result of many jobs in one round trip."""
        return read_ends(self.client, self.keys, job_ids)

    def _call(
        self,
        name: str,
        job_id: str,
        arguments: Sequence[Argument],
        keys: Sequence[str] | None = None,
    ) -> Any:
        return self._calls.one(ScriptCall(name, job_id, arguments, keys))


_NAMES = (
    "admit",
    "begin",
    "dead_letter",
    "confirm",
    "deliver",
    "finish",
    "forget_deliveries",
    "message_gone",
    "progress",
    "release",
    "renew",
    "replay",
    "requeued",
    "record_publication",
    *VERBS,
)


def _text(raw: bytes | str) -> str:
    return raw if isinstance(raw, str) else raw.decode("utf-8", "replace")


def _position(stamp: Stamp | None) -> list[str | int]:
    if stamp is None:
        return ["", 0, 0]
    # Epoch 0: the message does not know its epoch, only how often Celery itself has retried it, or
    # has replaced it by another task.
    return [stamp.epoch or "", stamp.generation, stamp.seq]
