"""Let many calls share a script: while one script runs, the next requests are collected.

One thread of the client sends the calls of all event loops, and of threads if there are many. The
thread sends at most 50 requests a script; a single call does not wait for others.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from time import monotonic
from typing import Final

from taskyard.client.admit_and_publish import Sender
from taskyard.client.rendered_request import Outcome, Rendered
from taskyard.client.resolve_futures import Answer, resolve
from taskyard.errors import KillSwitchOn, NotReplicated, PublishFailed
from taskyard.records import Admitted

__all__ = ["SharedCalls"]

# How long an idle client keeps its thread: for a service with a call now and then.
_LINGER_S: Final = 10.0
# Up to this many threads send their calls themselves, each in a round trip of its own, which is
# faster for few. Measured: for 16 threads sharing is equal; for 64 it does half as many again, and
# its slowest calls take a third. If the broker is another server, its connection takes one thread
# at a time.
_LANES: Final = 8
_ONE_LANE: Final = 1


class _Call:
    """One call that waits for its answer; `loop` is None if a thread made the call."""

    __slots__ = ("future", "loop", "rendered", "since_s")

    def __init__(
        self,
        rendered: Rendered,
        future: asyncio.Future[Admitted] | Future[Admitted],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self.rendered, self.future, self.loop = rendered, future, loop
        self.since_s = monotonic()

    def hears(self, outcome: Outcome) -> Answer:
        return self.loop, self.future, outcome


class SharedCalls:
    """Collects the calls of event loops and threads; `sender` sends their requests.

    `explain` converts an error that ended a script to the error that one of its calls raises. A
    call that has already waited for `longest_wait_s` is not sent any more.
    """

    def __init__(
        self, sender: Sender, explain: Callable[[Exception], Exception], longest_wait_s: float
    ) -> None:
        self._sender, self._explain, self._longest_wait_s = sender, explain, longest_wait_s
        self._lanes = threading.Semaphore(_LANES if sender.one_redis else _ONE_LANE)
        self._waiting: deque[_Call] = deque()
        self._under_way: deque[_Call] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._idle = False
        self._linger_s = _LINGER_S

    def aadmit(self, rendered: Rendered) -> asyncio.Future[Admitted]:
        """Collect a request; return the future of its own answer or error.

        If the future is cancelled before its script is sent, the request is not sent. After
        that the cancellation does not withdraw it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Admitted] = loop.create_future()
        self._submit(_Call(rendered, future, loop))
        return future

    def admit(self, rendered: Rendered) -> Admitted:
        """Do as `aadmit` for a thread; the thread sends its request itself while few others do."""
        if self._lanes.acquire(blocking=False):
            try:
                return self._sender.send(rendered)
            finally:
                self._lanes.release()
        future: Future[Admitted] = Future()
        self._submit(_Call(rendered, future, None))
        return future.result()

    def close(self) -> None:
        """Wait until all calls have their answers, then end the thread."""
        with self._lock:
            thread, self._linger_s = self._thread, 0
            self._wake.notify()
        if thread is not None:
            thread.join()

    def _submit(self, call: _Call) -> None:
        with self._lock:
            self._waiting.append(call)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="taskyard-client", daemon=True
                )
                self._thread.start()
            elif self._idle:
                self._wake.notify()

    def _run(self) -> None:
        while self._has_work():
            try:
                self._carry_all()
            except Exception as error:  # noqa: BLE001 - each caller raises it
                self._fail(error)

    def _has_work(self) -> bool:
        """Wait for a call; return False if none came and this thread must end."""
        with self._lock:
            if not self._waiting:
                self._idle = True
                self._wake.wait(self._linger_s)
                self._idle = False
            if self._waiting:
                return True
            self._thread = None
            return False

    def _carry_all(self) -> None:
        with closing(self._sender.carry(self._next)) as answers:
            for group in answers:
                resolve(self._under_way.popleft().hears(outcome) for outcome in group)
                sent = (outcome for outcome in group if not isinstance(outcome, KillSwitchOn))
                if isinstance(first := next(sent, None), PublishFailed):
                    # Each further script may take as long as this one did.
                    self._fail_late(first)

    def _next(self) -> Rendered | None:
        while self._waiting:
            call = self._waiting.popleft()
            if not call.future.cancelled():
                self._under_way.append(call)
                return call.rendered
        return None

    def _fail(self, error: Exception) -> None:
        """Give the error to all calls whose script was being sent.

        Calls that have waited too long behind them get an error too.
        """
        failed: list[Answer] = []
        while self._under_way:
            failed.append(self._under_way.popleft().hears(self._explain(error)))
        resolve(failed)
        self._fail_late(error)

    def _fail_late(self, error: Exception) -> None:
        """Give an error to the calls that waited too long behind those that failed with `error`."""
        failed: list[Answer] = []
        latest_s = monotonic() - self._longest_wait_s
        while self._waiting and self._waiting[0].since_s <= latest_s:
            failed.append(self._waiting.popleft().hears(self._not_sent(error)))
        resolve(failed)

    def _not_sent(self, error: Exception) -> Exception:
        cause = str(self._explain(error)).rstrip(".")
        if isinstance(error, NotReplicated):
            cause = f"{error.confirmed} of {error.wanted} replicas confirmed them"
        return PublishFailed(
            f"the job is not enqueued: its call waited {self._longest_wait_s:g} s behind earlier "
            f"calls, which failed: {cause}. Enqueue it again, whether it has an idempotency key "
            f"or not"
        )
