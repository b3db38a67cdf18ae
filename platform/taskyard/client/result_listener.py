"""The thread that waits for the ends of jobs.

The process that ends a job publishes a notice on the channel of the job's result, and the thread
then reads the record. In addition the thread reads the records from time to time. So it finds jobs
that end without a notice: those that an operator ended, and those of an installed app whose results
are in another server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from heapq import nsmallest
from time import monotonic
from typing import Any, Final

from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from taskyard.client.resolve_futures import Answer, resolve
from taskyard.jobs import Catalogue
from taskyard.jobs.states import State
from taskyard.records import End, Records

__all__ = ["Listener", "Waiter"]

# How soon a newly awaited job is subscribed to while others are listened for.
_TURN_S: Final = 0.01
_POLL_AFTER_S: Final = 5.0
# Read every second, however many results are awaited.
_POLLS: Final = 50
# A subscription without messages is checked with a ping.
_QUIET_S: Final = 10.0
# Limit for one turn, so that new jobs need not wait long behind old ones that end.
_MESSAGES: Final = 500


class Waiter:
    """One coroutine that waits for a job to reach one of the states `ends`.

    `looked` gets the job's state when the listener reads it.
    """

    def __init__(self, job_id: str, ends: frozenset[State]) -> None:
        self.job_id, self.ends = job_id, ends
        self.loop = asyncio.get_running_loop()
        self.end: asyncio.Future[End] = self.loop.create_future()
        self.looked: asyncio.Future[State] = self.loop.create_future()


class _Job:
    """A job that coroutines await, and the channels that announce its end."""

    def __init__(self, channel: str) -> None:
        self.waiters: set[Waiter] = set()
        self.channels = {channel}
        self.looked_s = monotonic()


class Listener:
    """The subscription of a client, for one thread; its calls raise redis-py's errors."""

    def __init__(self, records: Records, catalogue: Catalogue) -> None:
        self._records, self._catalogue = records, catalogue
        self._subscription: Any = records.client.pubsub()  # type: ignore[no-untyped-call]
        self._jobs: dict[str, _Job] = {}
        self._wanted: dict[str, str] = {}
        self._subscribed: set[str] = set()
        self._due: set[str] = set()
        self._polled_s = self._heard_s = monotonic()
        # Since when the subscription owes an answer, and how often in a row nothing came.
        self._asked_s: float | None = None
        self._silences = 0

    def __len__(self) -> int:
        """Return how many jobs are awaited."""
        return len(self._jobs)

    def enter(self, waiter: Waiter) -> None:
        """Add a waiting coroutine; read its job now and whenever the job may have ended."""
        job_id = waiter.job_id
        job = self._jobs.get(job_id)
        if job is None:
            channel = self._records.keys.result(job_id)
            job = self._jobs[job_id] = _Job(channel)
            self._wanted[channel] = job_id
        job.waiters.add(waiter)
        # Else it is read when the subscription is confirmed: an end before that is seen then.
        if job.channels & self._subscribed:
            self._due.add(job_id)

    def leave(self, waiter: Waiter) -> None:
        """Remove a waiting coroutine; the last one of a job removes the job."""
        job = self._jobs.get(waiter.job_id)
        if job is None:
            return
        job.waiters.discard(waiter)
        if not job.waiters:
            del self._jobs[waiter.job_id]
            self._due.discard(waiter.job_id)
            for channel in job.channels:
                del self._wanted[channel]

    def turn(self) -> None:
        """Subscribe to new jobs, collect notices, and read the jobs that the notices name."""
        self._subscribe()
        self._hear()
        self._poll()
        while self._due:
            self._look([self._due.pop() for _ in range(min(len(self._due), _MESSAGES))])

    def fail(self, explain: Callable[[], Exception]) -> None:
        """Give every waiting coroutine its own copy of an error, and start again."""
        waiters = [waiter for job in self._jobs.values() for waiter in job.waiters]
        for known in (self._jobs, self._wanted, self._subscribed, self._due):
            known.clear()
        self._silences = 0
        self.close()
        resolve((waiter.loop, waiter.end, explain()) for waiter in waiters)

    def close(self) -> None:
        """Close the subscription."""
        self._subscription.close()
        self._subscribed.clear()
        self._asked_s = None

    def _subscribe(self) -> None:
        if self._wanted.keys() == self._subscribed:
            return
        gone, new = self._subscribed - self._wanted.keys(), self._wanted.keys() - self._subscribed
        if gone:
            self._subscription.unsubscribe(*gone)
        if new:
            self._subscription.subscribe(*new)
        self._subscribed = set(self._wanted)
        self._asked_s = monotonic()

    def _hear(self) -> None:
        wait_s = _TURN_S
        for _ in range(_MESSAGES):
            message = self._subscription.get_message(timeout=wait_s)
            if message is None:
                self._mistrust()
                return
            wait_s = 0.0
            self._heard_s, self._asked_s, self._silences = monotonic(), None, 0
            if message["type"] in ("subscribe", "message"):
                job_id = self._wanted.get(message["channel"].decode())
                if job_id is not None:
                    self._due.add(job_id)

    def _mistrust(self) -> None:
        """Reopen a connection that is silent for too long; give up if that does not help."""
        now_s = monotonic()
        if self._asked_s is None:
            if self._subscribed and now_s - self._heard_s > _QUIET_S:
                self._subscription.ping()
                self._asked_s = now_s
        elif now_s - self._asked_s > self._records.settings.publish_timeout_s:
            self.close()
            self._silences += 1
            if self._silences > 1:
                raise RedisTimeoutError("Redis did not confirm a subscription to the ends of jobs")

    def _poll(self) -> None:
        now_s = monotonic()
        if now_s - self._polled_s < 1:
            return
        self._polled_s = now_s
        ripe = [each for each in self._jobs.items() if now_s - each[1].looked_s >= _POLL_AFTER_S]
        longest = nsmallest(_POLLS, ripe, key=lambda each: each[1].looked_s)
        self._due.update(job_id for job_id, _ in longest)

    def _look(self, job_ids: Sequence[str]) -> None:
        """Give the waiting coroutines their answers, if their jobs have ended."""
        now_s = monotonic()
        answers: list[Answer] = []
        ended: list[str] = []
        for job_id, found in zip(job_ids, self._records.states(job_ids), strict=True):
            job = self._jobs[job_id]
            job.looked_s = now_s
            if isinstance(found, RedisError):
                answers += [(each.loop, each.end, found) for each in job.waiters]
                continue
            self._know_type(job_id, job, found[1])
            answers += [(each.loop, each.looked, found[0]) for each in job.waiters]
            if any(found[0] in each.ends for each in job.waiters):
                ended.append(job_id)
        for end in self._records.ends(ended):
            # By what was read last: a replay may have begun between the two reads.
            waiters = self._jobs[end.record.job_id].waiters
            answers += [
                (each.loop, each.end, end) for each in waiters if end.record.state in each.ends
            ]
        resolve(answers)

    def _know_type(self, job_id: str, job: _Job, job_type: str) -> None:
        """Subscribe also to the channel where an installed app's protected task reports its end."""
        if job_type == "" or job_type in self._catalogue:
            return
        channel = self._records.keys.kept_result(job_id)
        job.channels.add(channel)
        self._wanted[channel] = job_id
