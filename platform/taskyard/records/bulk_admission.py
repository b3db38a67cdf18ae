"""Admit many jobs: in groups, before earlier replies are read, or waiting for replicas."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from time import monotonic
from typing import Any, Final

import redis
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from taskyard.clock import us_of
from taskyard.errors import KillSwitchOn, NotReplicated
from taskyard.records.job_keys import Keys
from taskyard.records.parse_replies import parse_admitted
from taskyard.records.script_replies import OWN_ID, Admission, Admitted, Publication, UnadmittedJob
from taskyard.settings import Settings
from taskyard.store import TRIES, Argument, Script, WrongKeyType, call_replicated, named
from taskyard.store.pipelined_scripts import PipelinedCalls
from taskyard.switches import Kind, fields_of
from taskyard.wire.redacted_logs import logger

__all__ = ["SCRIPTS_AHEAD", "Admissions", "Upcoming", "record_publications"]

log = logger(__name__)

# A script must not block the server: 50 admissions take about a millisecond.
_GROUP: Final = 50
# Sent before the first answer is read: one for the server to work on, one that waits, one whose
# answer is on its way; more would only fill buffers.
SCRIPTS_AHEAD: Final = 3
# A script of large messages would block the server longer: it is closed at this many bytes.
_GROUP_BYTES: Final = 1_048_576
# What is sent at once must arrive before the socket's timeout.
_TURN_BYTES: Final = 4_194_304
_NOWHERE: Final = Publication("", "", "", "", "", 0)
Upcoming = Callable[[], Admission | None]
_Admitted = Admitted | KillSwitchOn
_Answer = list[_Admitted] | ResponseError
_TYPES: Final = ("hash", "stream", "hash", "string")


def record_publications(
    client: redis.Redis,
    script: Script,
    keys: Keys,
    jobs: Sequence[UnadmittedJob],
    *,
    published: bool,
    window_ms: int,
) -> int:
    """Return how many of `jobs` got a new record; see `Records.record_publications`."""
    with client.pipeline(transaction=False) as pipe:
        script.queue_load(pipe)
        for job in jobs:
            facts: list[Argument] = [job.job_id, job.job_type, job.queue]
            facts += [int(published), window_ms]
            script.queue(pipe, keys.script_keys(job.job_id), facts)
        # Each is a script of its own: a refused one says nothing about the others.
        answers = pipe.execute(raise_on_error=False)[1:]
    return sum(_new(client, keys, job, reply) for job, reply in zip(jobs, answers, strict=True))


def _new(client: redis.Redis, keys: Keys, job: UnadmittedJob, answer: Any) -> int:
    """Return 1 for a job with a new record, 0 for a job whose record existed or cannot be written.

    Other errors are raised.
    """
    if not isinstance(answer, Exception):
        return int(answer)
    if not isinstance(answer, ResponseError):
        raise answer
    of_script = keys.script_keys(job.job_id)
    error = named(client, answer, dict(zip(of_script, _TYPES, strict=True)))
    if not isinstance(error, WrongKeyType) or error.key != keys.record(job.job_id):
        raise error
    facts = {"action": "key_misplaced", "key": error.key, "job_id": job.job_id}
    log.error("job %s got no record: %s", job.job_id, error, extra=facts)
    return 0


class Admissions:
    """The script `admit` for one namespace."""

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        keys: Keys,
        script: Script,
        domain_of: Callable[[str], str],
    ) -> None:
        self._client, self._settings, self._keys, self._script = client, settings, keys, script
        self._domain_of = domain_of

    def many(self, jobs: Sequence[Admission]) -> list[_Admitted]:
        """Admit any number of jobs; return the answers in the jobs' order."""
        if len(jobs) > _GROUP:
            return [answer for answers in self.ahead(jobs) for answer in answers]
        if jobs and self._settings.replicas:
            return self._replicated(jobs)
        if not jobs:
            return []
        with self._naming(jobs):
            return [parse_admitted(raw) for raw in self._script(self._client, *self._call(jobs))]

    def ahead(self, jobs: Iterable[Admission]) -> Generator[list[_Admitted]]:
        """Admit jobs in groups of 50, one script each, and yield the answers in the jobs' order.

        The answer to a job that a kill switch refuses is its error.

        Redis works on some groups while the next jobs are taken from `jobs`. Close the iterator if
        you stop early.
        """
        left = iter(jobs)
        if self._settings.replicas:
            while group := _group(lambda: next(left, None)):
                yield self._replicated(group)
            return
        groups: deque[list[Admission]] = deque()
        with PipelinedCalls(self._client, self._script) as calls:
            while True:
                while len(calls) < SCRIPTS_AHEAD and (group := _group(lambda: next(left, None))):
                    groups.append(group)
                    calls.send(*self._call(group))
                if not calls:
                    return
                yield self._admitted(calls, groups.popleft())

    def _admitted(self, calls: PipelinedCalls, jobs: Sequence[Admission]) -> list[_Admitted]:
        with self._naming(jobs):
            return [parse_admitted(raw) for raw in calls.receive()]

    def each(self, upcoming: Upcoming, scripts: int) -> Generator[Sequence[Admitted | Exception]]:
        """Admit jobs of many callers: each caller gets its own answer, or its own error.

        `upcoming` gives the next job, or None if there is no job: then a turn begins. A turn sends
        at most `scripts` scripts at once and yields their answers together. Jobs that come
        meanwhile wait for the next turn. Raises redis-py's error if the server is lost: then it is
        unknown whether the jobs that were taken, and whose answers were not yielded, are admitted.
        Close the iterator if you stop early.
        """
        if self._settings.replicas:
            while group := _group(upcoming):
                yield self._replicas_answers(group)
            return
        with PipelinedCalls(self._client, self._script) as calls:
            while groups := _turn(upcoming, scripts):
                calls.send_all(self._call(group) for group in groups)
                known: list[Admitted | Exception] = []
                try:
                    for group in groups:
                        known += self._own_answers(group, _received(calls))
                except RedisError:
                    if known:
                        yield known
                    raise
                yield known

    def _own_answers(
        self, group: Sequence[Admission], answer: _Answer
    ) -> Sequence[Admitted | Exception]:
        return self._apart(group, answer) if isinstance(answer, ResponseError) else answer

    def _apart(
        self, group: Sequence[Admission], error: ResponseError
    ) -> Sequence[Admitted | Exception]:
        """Return the answers to jobs of which one made their common script fail with `error`.

        Each job is admitted by a script of its own. A job that the failed script admitted gets the
        same answer again.
        """
        if len(group) == 1:
            return [named(self._client, error, self._types(group))]
        if self._settings.replicas:
            return [own for job in group for own in self._replicas_answers([job])]
        with PipelinedCalls(self._client, self._script) as calls:
            calls.send_all(self._call([job]) for job in group)
            answers = [_received(calls) for _ in group]
        return [
            own
            for job, answer in zip(group, answers, strict=True)
            for own in self._own_answers([job], answer)
        ]

    def _replicas_answers(self, jobs: Sequence[Admission]) -> Sequence[Admitted | Exception]:
        try:
            answers, unconfirmed = self._await_replicas(jobs)
        except ResponseError as error:
            if isinstance(error, ReadOnlyError):
                raise
            return self._apart(jobs, error)
        if unconfirmed is None:
            return answers
        return [
            unconfirmed.of(job.job_id) if isinstance(answer, Admitted) else answer
            for job, answer in zip(jobs, answers, strict=True)
        ]

    def _replicated(self, jobs: Sequence[Admission]) -> list[_Admitted]:
        """Admit jobs and wait for replicas; raises `NotReplicated` if too few confirm them."""
        answers, unconfirmed = self._await_replicas(jobs)
        if unconfirmed is not None:
            raise unconfirmed
        return answers

    def _await_replicas(
        self, jobs: Sequence[Admission]
    ) -> tuple[list[_Admitted], NotReplicated | None]:
        """Admit jobs and wait for replicas, up to a publication's time.

        Returns the answers, and an error about the jobs that have a record if too few confirm it.
        """
        wanted, timeout_s = self._settings.replicas, self._settings.publish_timeout_s
        until = monotonic() + timeout_s
        while True:
            with self._naming(jobs):
                replies, confirmed = call_replicated(
                    self._client,
                    self._script,
                    *self._call(jobs),
                    mark=f"{self._settings.namespace}:replicated",
                    replicas=wanted,
                    # The answer must come before the socket's timeout.
                    within_s=timeout_s / TRIES / 2,
                )
            answers = [parse_admitted(raw) for raw in replies]
            written = [at for at, answer in enumerate(answers) if isinstance(answer, Admitted)]
            if confirmed >= wanted or not written:
                return answers, None
            if monotonic() >= until:
                refused = [at for at in range(len(jobs)) if at not in written]
                return answers, NotReplicated(
                    [jobs[at].job_id for at in written],
                    unkeyed=[jobs[at].job_id for at in written if jobs[at].call == OWN_ID],
                    confirmed=confirmed,
                    wanted=wanted,
                    within_s=timeout_s,
                    requests=[*written, *refused],
                )

    @contextmanager
    def _naming(self, jobs: Sequence[Admission]) -> Iterator[None]:
        """Raise `WrongKeyType` if `jobs` cannot be admitted because of a key's type."""
        try:
            yield
        except ResponseError as error:
            raise named(self._client, error, self._types(jobs)) from None

    def _types(self, jobs: Sequence[Admission]) -> dict[str, str]:
        types = {self._keys.lifecycle: "stream", self._keys.gaps: "hash"}
        types[self._keys.switches] = "hash"
        for job in jobs:
            record, out = self._keys.record(job.job_id), job.publication or _NOWHERE
            types |= {record: "hash", f"{record}:deliveries": "string", out.list_key: "list"}
            types |= {out.delayed_key: "zset", out.messages_key: "hash"}
        types.pop("", None)
        return types

    def _call(self, jobs: Sequence[Admission]) -> tuple[list[str], list[Argument]]:
        first = jobs[0].publication or _NOWHERE
        keys = self._keys.script_keys(jobs[0].job_id)
        # Redis refuses an empty key to a user whose keys are restricted; this key is not used.
        keys += [first.delayed_key or keys[0], first.messages_key or keys[0], self._keys.switches]
        arguments: list[Argument] = []
        replies: list[Argument] = []
        for at, job in enumerate(jobs):
            if at > 0:
                keys += [self._keys.record(job.job_id), self._keys.result(job.job_id)]
            out = job.publication or _NOWHERE
            arguments += [job.job_id, job.job_type, job.queue, job.priority]
            arguments += [us_of(job.unique_for_s), out.list_key, out.head, out.tail]
            domain = self._domain_of(job.job_type)
            arguments += [us_of(out.delay_s), job.call, domain]
            arguments.append(
                _kill_switches(job.queue, job.job_type, domain) if job.refusable else ""
            )
            if job.reply is not None:
                replies += [at, job.reply.queue, job.reply.correlation_id]
        return keys, arguments + replies


@lru_cache(maxsize=1_024)
def _kill_switches(queue: str, job_type: str, domain: str) -> str:
    """Return the kill switches that refuse a new job, one a line."""
    fields = fields_of(queue, job_type, domain)
    return "\n".join(str(field) for field in fields if field.kind is Kind.KILL)


def _turn(upcoming: Upcoming, scripts: int) -> list[list[Admission]]:
    """Return the next jobs, at most as many as this number of scripts can admit."""
    groups: list[list[Admission]] = []
    space = _TURN_BYTES
    while len(groups) < scripts and space > 0 and (group := _group(upcoming)):
        groups.append(group)
        space -= sum(_size(job) for job in group)
    return groups


def _group(upcoming: Upcoming) -> list[Admission]:
    """Return the next jobs for one script."""
    group: list[Admission] = []
    space = _GROUP_BYTES
    while len(group) < _GROUP and space > 0 and (job := upcoming()) is not None:
        group.append(job)
        space -= _size(job)
    return group


def _size(job: Admission) -> int:
    out = job.publication
    return 0 if out is None else len(out.head) + len(out.tail)


def _received(calls: PipelinedCalls) -> _Answer:
    try:
        return [parse_admitted(raw) for raw in calls.receive()]
    except ResponseError as error:
        if isinstance(error, ReadOnlyError):
            raise
        return error
