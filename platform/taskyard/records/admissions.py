"""Admitting many jobs: in groups, ahead of their replies, or with replicas as witnesses."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from time import monotonic
from typing import Final

import redis
from redis.exceptions import ResponseError

from taskyard.errors import NotReplicated
from taskyard.records.answers import OWN_ID, Admission, Admitted, Publication
from taskyard.records.keys import Keys
from taskyard.records.parse import parse_admitted
from taskyard.settings import Settings
from taskyard.store import TRIES, Argument, Script, call_replicated, named
from taskyard.store.pipelined import PipelinedCalls

__all__ = ["Admissions"]

_US: Final = 1_000_000
# A script must not hold up the server: 50 admissions take about a millisecond.
_GROUP: Final = 50
# One that the server works on and one that waits for it; more would only lie in buffers.
_AHEAD: Final = 2
_NOWHERE: Final = Publication("", "", "", "", "", 0)


class Admissions:
    """The script `admit` for one namespace."""

    def __init__(self, client: redis.Redis, settings: Settings, keys: Keys, script: Script) -> None:
        self._client, self._settings, self._keys, self._script = client, settings, keys, script

    def many(self, jobs: Sequence[Admission]) -> list[Admitted]:
        """Admit any number of jobs; answers in the jobs' order."""
        if len(jobs) > _GROUP:
            return [answer for answers in self.ahead(jobs) for answer in answers]
        if jobs and self._settings.replicas:
            return self._replicated(jobs)
        if not jobs:
            return []
        with self._naming(jobs):
            return [parse_admitted(raw) for raw in self._script(self._client, *self._call(jobs))]

    def ahead(self, jobs: Iterable[Admission]) -> Generator[list[Admitted]]:
        """`many`, 50 a script; the answers of 50 at a time, in the jobs' order.

        The server works on some while the next are taken from `jobs`. Close it if you stop early.
        """
        left = iter(jobs)
        if self._settings.replicas:
            while group := list(islice(left, _GROUP)):
                yield self._replicated(group)
            return
        groups: deque[list[Admission]] = deque()
        with PipelinedCalls(self._client, self._script) as calls:
            while group := list(islice(left, _GROUP)):
                groups.append(group)
                calls.send(*self._call(group))
                if len(calls) > _AHEAD:
                    yield self._received(calls, groups.popleft())
            while calls:
                yield self._received(calls, groups.popleft())

    def _received(self, calls: PipelinedCalls, jobs: Sequence[Admission]) -> list[Admitted]:
        with self._naming(jobs):
            return [parse_admitted(raw) for raw in calls.receive()]

    def _replicated(self, jobs: Sequence[Admission]) -> list[Admitted]:
        """`many` that waits for replicas, as long as a publication may; raises `NotReplicated`."""
        wanted, patience_s = self._settings.replicas, self._settings.publish_timeout_s
        until = monotonic() + patience_s
        while True:
            with self._naming(jobs):
                replies, confirmed = call_replicated(
                    self._client,
                    self._script,
                    *self._call(jobs),
                    mark=f"{self._settings.namespace}:replicated",
                    replicas=wanted,
                    # The answer has to come before the socket gives up.
                    within_s=patience_s / TRIES / 2,
                )
            if confirmed >= wanted:
                return [parse_admitted(raw) for raw in replies]
            if monotonic() >= until:
                raise NotReplicated(
                    [job.job_id for job in jobs],
                    unkeyed=[job.job_id for job in jobs if job.call == OWN_ID],
                    confirmed=confirmed,
                    wanted=wanted,
                    within_s=patience_s,
                )

    @contextmanager
    def _naming(self, jobs: Sequence[Admission]) -> Iterator[None]:
        """Raise `Misplaced` where admitting `jobs` fails for the type of a key."""
        try:
            yield
        except ResponseError as error:
            raise named(self._client, error, self._types(jobs)) from None

    def _types(self, jobs: Sequence[Admission]) -> dict[str, str]:
        types = {self._keys.lifecycle: "stream", self._keys.gaps: "hash"}
        for job in jobs:
            record, out = self._keys.record(job.job_id), job.publication or _NOWHERE
            types |= {record: "hash", f"{record}:deliveries": "string", out.list_key: "list"}
            types |= {out.delayed_key: "zset", out.messages_key: "hash"}
        types.pop("", None)
        return types

    def _call(self, jobs: Sequence[Admission]) -> tuple[list[str], list[Argument]]:
        first = jobs[0].publication or _NOWHERE
        keys = [*self._keys.script_keys(jobs[0].job_id), first.delayed_key, first.messages_key]
        arguments: list[Argument] = []
        for at, job in enumerate(jobs):
            if at > 0:
                keys += [self._keys.record(job.job_id), self._keys.result(job.job_id)]
            out = job.publication or _NOWHERE
            arguments += [job.job_id, job.job_type, job.queue, job.priority]
            arguments += [int(job.unique_for_s * _US), out.list_key, out.head, out.tail]
            arguments += [int(out.delay_s * _US), job.call]
        return keys, arguments
