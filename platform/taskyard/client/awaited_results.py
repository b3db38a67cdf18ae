"""Await results in coroutines: one subscription to Redis, in one thread, for a whole client."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from redis.exceptions import RedisError

from taskyard.client.result_listener import Listener, Waiter
from taskyard.client.timeouts import LAST_ASK_S
from taskyard.errors import ResultTimeout, TaskyardError
from taskyard.jobs.states import LIVE, State
from taskyard.records import End

__all__ = ["AwaitedResults"]

# How long the subscription stays open when nothing is awaited: a service may await again soon.
_LINGER_S: Final = 10.0


class AwaitedResults:
    """The results that coroutines of one client await; several event loops may share it.

    `listener` creates the subscription. `explain` converts an error of Redis to the error that
    a waiting coroutine gets.
    """

    def __init__(
        self, listener: Callable[[], Listener], explain: Callable[[Exception], Exception]
    ) -> None:
        self._listener, self._explain = listener, explain
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._moves: deque[tuple[Waiter, bool]] = deque()
        self._linger_s = _LINGER_S
        self._closing = False

    async def end_of(self, job_id: str, seconds: float | None, *, replay: bool) -> End:
        """Wait for a job's end; with `replay`, a dead letter does not count as an end.

        Raises `ResultTimeout` after `seconds` (None waits without limit), or at most a
        second later. An error of Redis is raised as `explain` converts it.
        """
        awaited = LIVE if replay else LIVE - {State.DEAD_LETTERED}
        waiter = Waiter(job_id, frozenset(set(State) - awaited))
        self._move(waiter, enters=True)
        try:
            await asyncio.wait([waiter.end], timeout=seconds)
            if seconds is not None and not waiter.end.done():
                await self._look_once_more(waiter, seconds)
            return waiter.end.result()
        except RedisError as error:
            raise self._explain(error) from error
        finally:
            self._move(waiter, enters=False)
            # The thread may set a result or an error later. A cancelled future ignores it, so
            # asyncio does not log an error that nothing has read.
            waiter.end.cancel()

    async def _look_once_more(self, waiter: Waiter, seconds: float) -> None:
        waiter.looked = waiter.loop.create_future()
        self._move(waiter, enters=True)
        last: list[asyncio.Future[Any]] = [waiter.end, waiter.looked]
        await asyncio.wait(last, timeout=LAST_ASK_S, return_when=asyncio.FIRST_COMPLETED)
        if waiter.end.done():
            return
        if waiter.looked.done():
            raise ResultTimeout(
                f"job {waiter.job_id} is still {waiter.looked.result()} after {seconds:g} s. See: "
                f"taskyard jobs show {waiter.job_id}"
            )
        raise ResultTimeout(
            f"job {waiter.job_id}: Redis did not answer when {seconds:g} s were over, so it is "
            f"unknown whether the job has ended. Ask again once Redis answers; `taskyard check` "
            f"shows whether it does"
        )

    def close(self) -> None:
        """Close the subscription; results that are still awaited fail."""
        with self._lock:
            thread, self._closing = self._thread, True
            self._wake.notify()
        if thread is not None:
            thread.join()
        self._closing = False

    def _move(self, waiter: Waiter, *, enters: bool) -> None:
        with self._lock:
            self._moves.append((waiter, enters))
            if self._thread is None and enters:
                self._thread = threading.Thread(
                    target=self._run, name="taskyard-results", daemon=True
                )
                self._thread.start()
            self._wake.notify()

    def _run(self) -> None:
        listener = self._listener()
        while self._has_work(listener):
            try:
                self._take_moves(listener)
                listener.turn()
            except Exception as error:  # noqa: BLE001 - each waiter raises it
                listener.fail(partial(self._explain, error))
        listener.fail(
            lambda: TaskyardError(
                "the client was closed while a result was awaited; close it after its last call"
            )
        )

    def _has_work(self, listener: Listener) -> bool:
        with self._lock:
            if not self._moves and not len(listener) and not self._closing:
                self._wake.wait(self._linger_s)
            if self._closing or not (self._moves or len(listener)):
                self._thread = None
                return False
            return True

    def _take_moves(self, listener: Listener) -> None:
        while self._moves:
            waiter, enters = self._moves.popleft()
            if enters:
                listener.enter(waiter)
            else:
                listener.leave(waiter)
