"""Run production's pipeline of one attempt in the test's own thread and time."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from taskyard.jobs import JobContext
from taskyard.jobs.types import JobType
from taskyard.records import Run
from taskyard.runner import Rules, Runner
from taskyard.runner.attempt_steps import AttemptSteps, Delivery
from taskyard.runner.lease import Lease, LeaseKeeper
from taskyard.runner.process_end import ProcessEnd
from taskyard.testing.clock import Alarm, YardClock
from taskyard.testing.faults import OvertimeKill, ProcessKilled
from taskyard.testing.inbox import guard
from taskyard.testing.records import MemoryRecords

__all__ = ["EagerRunner", "off_the_loop"]


class StillKeeper(LeaseKeeper):
    """A lease keeper without a thread: it renews the lease when the test moves the clock."""

    lease: Lease | None = None

    def watch(self, lease: Lease) -> None:
        """Keep `lease` until `release` is called."""
        self.lease = lease

    def release(self, lease: Lease) -> None:
        """Stop renewing the lease."""
        self.lease = None

    def renew(self) -> None:
        """Renew the lease now."""
        if self.lease is not None:
            self.lease.renew()


class EagerSteps(AttemptSteps):
    """The steps of an attempt, in the test's own process."""

    def process_end(self, delivery: Delivery) -> ProcessEnd:
        """Return what tells a handler's failure from a process' end that the test requested."""
        return _EndOfTest()

    def context(self, delivery: Delivery, run: Run, lease: Lease) -> JobContext:
        """Return production's context for the handler; its `once` uses the test's database."""
        context = super().context(delivery, run, lease)
        return replace(context, _once=guard(context._once))


class EagerRunner(Runner):
    """The runner of attempts, `taskyard.runner.Runner`, with the yard's clock."""

    def __init__(self, records: MemoryRecords, rules: Rules, clock: YardClock) -> None:
        self._yard_clock = clock
        self._still = StillKeeper(records.settings.lease_s)
        super().__init__(EagerSteps(records, rules, clock, keeper=self._still))

    @cached_property
    def _loops(self) -> asyncio.Runner:
        loops = asyncio.Runner()
        # A loop that is never closed would give a ResourceWarning in the user's test run.
        weakref.finalize(self, _close, loops)
        return loops

    def limits(self, job_type: JobType | None) -> AbstractContextManager[None]:
        """Renew the lease and apply the time limits when the clock moves during an attempt."""
        if job_type is None:
            return self._yard_clock.alarms(self._renewals(0))
        alarms = self._renewals(job_type.time_limit_s)
        alarms.append(self._alarm(job_type.time_limit_s, _overtime(job_type.time_limit_s)))
        if job_type.soft_time_limit_s is not None:
            alarms.append(self._alarm(job_type.soft_time_limit_s, _soft_limit))
        return self._yard_clock.alarms(alarms)

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Stall the running attempt inside the block: its lease is not renewed, others may run.

        At the end of the block the attempt continues, and finds out whether it has lost its
        lease.
        """
        lease, self._still.lease = self._still.lease, None
        loops = self.__dict__.pop("_loops", None)
        try:
            with self._yard_clock.alarms([]):
                yield
        finally:
            self.__dict__.pop("_loops", None)
            if loops is not None:
                self.__dict__["_loops"] = loops
            self._still.lease = lease
            self._still.renew()

    def _renewals(self, until_s: float) -> list[Alarm]:
        interval_s = self.steps.records.settings.lease_s / 3
        count = int(until_s / interval_s)
        return [self._alarm(interval_s * n, self._still.renew) for n in range(1, count + 1)]

    def _alarm(self, after_s: float, ring: Callable[[], None]) -> Alarm:
        return self.steps.clock.now() + timedelta(seconds=after_s), ring


def _close(loops: asyncio.Runner) -> None:
    """Close the event loop of a client that is no longer used.

    The garbage collector calls this, perhaps while a loop of the user's own test runs in this
    thread. Then no other loop can run here, and this one is closed without its last steps.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        loops.close()
    else:
        loops.get_loop().close()


class _EndOfTest(ProcessEnd):
    """Distinguishes a handler's failure from an end that the test requested."""

    def __init__(self) -> None:
        super().__init__(lambda: False, None)

    def go_on(self, error: BaseException) -> None:
        """Raise the error on if the test requested it, or if it ends the test.

        The latter are `pytest.fail`, `pytest.skip` and `pytest.exit`.
        """
        modules = {cls.__module__ for cls in type(error).__mro__}
        if isinstance(error, ProcessKilled) or "_pytest.outcomes" in modules:
            raise error


def _soft_limit() -> None:
    raise SoftTimeLimitExceeded


def _overtime(limit_s: float) -> Callable[[], None]:
    def ring() -> None:
        raise OvertimeKill(limit_s)

    return ring


def off_the_loop(work: Callable[[], Any]) -> Any:
    """Return `work()`; call it in a separate thread if this thread runs an event loop.

    A handler's loop cannot run inside the loop of an async test.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(1, thread_name_prefix="taskyard-testing") as thread:
        return thread.submit(copy_context().run, work).result()
