"""Script calls that are sent before the replies to earlier calls are read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from itertools import islice
from types import TracebackType
from typing import Any, Self

import hiredis
import redis
from redis.exceptions import NoScriptError, ResponseError

from taskyard.store.lua_scripts import Argument, Script

__all__ = ["PipelinedCalls"]

_Call = tuple[Sequence[str], Sequence[Argument]]


class PipelinedCalls:
    """Calls of one script on one connection, sent before the replies to earlier calls are read.

    Redis works on one call while the caller prepares the next. `len()` is the number of calls
    without a reply; the caller limits it. A lost connection is opened again, as often as the
    client's own. Then calls without a reply are sent again in their order, so the script must give
    the same answer to a repeat.
    """

    def __init__(self, client: redis.Redis, script: Script) -> None:
        # redis-py does not type what a connection does.
        self._pool: Any = client.connection_pool
        self._script = script
        self._waiting: deque[_Call] = deque()
        self._written = 0
        self._loaded = script.known

    def __enter__(self) -> Self:
        """Take a connection."""
        self._connection = self._pool.get_connection()
        self._retry = deepcopy(self._connection.retry)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Return the connection to the pool, or close it if replies are still to come."""
        if self._waiting:
            self._connection.disconnect()
        self._pool.release(self._connection)

    def __len__(self) -> int:
        """Return how many calls have no reply yet."""
        return len(self._waiting)

    def send(self, keys: Sequence[str], arguments: Sequence[Argument]) -> None:
        """Send a call; raises redis-py's errors."""
        self.send_all([(keys, arguments)])

    def send_all(self, calls: Iterable[_Call]) -> None:
        """Send several calls without waiting for their replies; raises redis-py's errors."""
        self._waiting.extend(calls)
        self._persist(self._write)

    def receive(self) -> Any:
        """Return the reply of the oldest call; raises redis-py's errors.

        A `ResponseError` is the reply of that call only: the next call's reply can be received
        after it.
        """
        try:
            reply = self._persist(self._read)
        except ResponseError:
            # The server wrote nothing if its refusal means a lost connection (READONLY).
            if self._written:
                self._drop_oldest()
            raise
        self._drop_oldest()
        self._script.known = True
        return reply

    def _drop_oldest(self) -> None:
        self._waiting.popleft()
        self._written -= 1

    def _write(self) -> None:
        unwritten = list(islice(self._waiting, self._written, None))
        if not unwritten:
            return
        packed = [self._packed(call, first=at == 0) for at, call in enumerate(unwritten)]
        # A ping between the calls would read the reply of one of them.
        self._connection.send_packed_command([b"".join(packed)], check_health=self._written == 0)
        self._loaded = True
        self._written += len(unwritten)

    def _packed(self, call: _Call, *, first: bool) -> bytes:
        # The first call to a server that does not know the script brings its source along.
        command: Any = self._script.command(*call, known=self._loaded or not first)
        # redis-py's own packing looks at each of the hundreds of arguments first.
        packed: bytes = hiredis.pack_command(command)
        return packed

    def _read(self) -> Any:
        self._write()
        return self._connection.read_response()

    def _persist(self, act: Callable[[], Any]) -> Any:
        while True:
            try:
                return self._retry.call_with_retry(act, self._lose)
            except NoScriptError as error:
                # The server has lost the script, or is another one since a failover: this try does
                # not count.
                self._lose(error)

    def _lose(self, _: Exception) -> None:
        self._connection.disconnect()
        self._written, self._loaded = 0, False
