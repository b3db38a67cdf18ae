"""The records of one namespace: admit jobs, confirm and replay them, and read what is known."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence

import redis
from redis.exceptions import RedisError, ResponseError

from taskyard.clock import redis_time_us, us_of
from taskyard.errors import KillSwitchOn, Refused
from taskyard.jobs.states import State
from taskyard.records.attempt_scripts import AttemptScripts
from taskyard.records.attempt_stops import AttemptStops
from taskyard.records.bulk_admission import Admissions, Upcoming, record_publications
from taskyard.records.bulk_states import End, read_ends, read_many, read_states
from taskyard.records.job_keys import Keys
from taskyard.records.job_record import Record
from taskyard.records.operator_verbs import OperatorVerbs
from taskyard.records.script_calls import ReplayCall, ScriptCall, ScriptCalls
from taskyard.records.script_replies import (
    Admission,
    Admitted,
    Publication,
    Replayed,
    ReplyTo,
    UnadmittedJob,
)
from taskyard.records.script_source import VERBS, script_source
from taskyard.settings import Settings
from taskyard.store import Script, named

__all__ = ["Records", "no_domain"]


def no_domain(_job_type: str) -> str:
    """Return the empty domain for every job type."""
    return ""


class Records:
    """The records of one namespace.

    `keys` are needed if the key names differ from those of `Keys`. `domain_of` returns the domain
    that owns a job type, empty for none: records and events have it as a field. `attempts` are the
    scripts of workers, `verbs` those of operators.
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
        self._scripts = {name: Script(self._source(name)) for name in _NAMES}
        self._calls = ScriptCalls(client, self.keys, self._scripts)
        self.attempts = AttemptScripts(self._calls, self.keys, settings, domain_of)
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
        script = self._scripts["record_publication"]
        window_ms = us_of(self.settings.dedupe_window_s) // 1000
        return record_publications(
            self.client, script, self.keys, jobs, published=published, window_ms=window_ms
        )

    def confirm(self, job_id: str, epoch: int) -> None:
        """Note that the broker has confirmed the first message of this epoch."""
        self._calls.one(ScriptCall("confirm", job_id, [epoch]))

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

    def requeued(self, job_id: str, epoch: int, generation: int) -> bool:
        """Note that the message of a rerouted job is in its new queue.

        Returns False if the message has begun there already, or the job has gone on otherwise.
        """
        return bool(self._calls.one(ScriptCall("requeued", job_id, [epoch, generation])))

    def note_gone_many(self, lives: Sequence[tuple[str, int]]) -> None:
        """Note for many (job id, epoch) that no worker will see their message any more.

        The record of a job that an operator has ended then lasts as usual, and no longer until its
        message comes. Raises redis-py's errors.
        """
        self._calls.all([ScriptCall("message_gone", job_id, [epoch]) for job_id, epoch in lives])

    def ends(self, job_ids: Sequence[str]) -> list[End]:
        """Return record and result of many jobs in one round trip."""
        return read_ends(self.client, self.keys, job_ids)


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
