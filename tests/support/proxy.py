"""A TCP proxy that tests steer: it cuts connections, delays them, or swallows what they say."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

__all__ = ["Cuts", "Proxy", "through"]

CHUNK = 65_536


@dataclass
class _Loss:
    """Replies that never arrive: the first ones to requests with `to` in them pass."""

    to: bytes
    passing: int
    times: int
    meanwhile: Callable[[], object] = lambda: None

    def takes(self) -> bool:
        """Whether the reply that has just come is one of them."""
        if self.passing > 0:
            self.passing -= 1
            return False
        self.times -= 1
        if self.times < 0:
            return False
        self.meanwhile()
        return True


# `EVAL` or `EVALSHA`, as Redis receives it.
SCRIPT = b"EVAL"


class _Link:
    """One connection: whether what it has asked last is a request whose reply is to be lost."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._asked = False
        self._end = b""

    def asks(self, data: bytes) -> bool:
        self._count_scripts(data)
        loss = self._proxy.loss
        self._asked = self._asked or (loss is not None and loss.to in data)
        return True

    def _count_scripts(self, data: bytes) -> None:
        """A command may come in two parts."""
        self._proxy.scripts += (self._end + data).count(SCRIPT)
        self._end = data[1 - len(SCRIPT) :]

    def answers(self, data: bytes) -> bool:
        loss = self._proxy.loss
        return not (data and self._asked and loss is not None and loss.takes())


class Proxy:
    """Forwards `127.0.0.1:port` to `upstream` in a thread of its own while the context is open."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.delay_s = 0.0
        self.loss: _Loss | None = None
        self.held = 0
        # Scripts that clients of this proxy have sent, those of no other client of the server.
        self.scripts = 0
        self._flows = asyncio.Event()
        self._flows.set()
        self._stalled: set[asyncio.StreamWriter] = set()
        self._dead = False

    @property
    def port(self) -> int:
        assert self._server is not None, "the proxy was not started"
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> int:
        """Reset every connection; how many there were. New ones are accepted."""
        return asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(10)

    def lose_replies(
        self,
        to: bytes,
        *,
        after: int = 0,
        times: int = 1,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        """Cut a connection when the reply comes to what it asked with `to`; `after` replies pass.

        The server has done what it was asked by then; `meanwhile` is called before the cut.
        """
        self.loss = _Loss(to, after, times, meanwhile)

    @property
    def lost(self) -> bool:
        """Whether everything that was to be lost is lost."""
        return self.loss is not None and self.loss.times <= 0

    def swallow(self) -> None:
        """Forward nothing any more: connections stand, and nobody answers."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def die(self) -> None:
        """Reset every connection, and each new one at once, as a server that was killed."""
        self._dead = True
        self.cut()

    def revive(self) -> None:
        """Take connections again."""
        self._dead = False

    def stall(self) -> None:
        """The connections there are stand, and nobody answers on them; new ones are served."""
        self._loop.call_soon_threadsafe(lambda: self._stalled.update(self._writers))

    def flow(self) -> None:
        """Forward again, also what was held back."""
        self._loop.call_soon_threadsafe(self._flows.set)

    async def _cut(self) -> int:
        count = len(self._writers) // 2
        for writer in list(self._writers):
            writer.transport.abort()
        return count

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._dead:
            writer.transport.abort()
            return
        try:
            above, below = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, below}
        link = _Link(self)
        try:
            await asyncio.gather(
                self._pump(reader, below, link.asks), self._pump(above, writer, link.answers)
            )
        finally:
            self._writers -= {writer, below}
            for one in (writer, below):
                one.transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        passes: Callable[[bytes], bool],
    ) -> None:
        try:
            while data := await reader.read(CHUNK):
                if not passes(data):
                    writer.transport.abort()
                    return
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                self.held += 1
                await self._flows.wait()
                self.held -= 1
                if writer in self._stalled:
                    continue
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            writer.transport.abort()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._connected, "127.0.0.1", 0)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Also where it is cancelled before it has begun, or while it connects.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def __enter__(self) -> Self:
        self._thread.start()
        listening = asyncio.run_coroutine_threadsafe(self._listen(), self._loop)
        self._server = listening.result(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class Cuts:
    """Cuts that follow progress: however slow the machine is, a repeated try gets through.

    One of `proxies` is cut when some answers have come, while other calls are under way.
    """

    def __init__(self, chance: random.Random, proxies: Sequence[Proxy]) -> None:
        self._chance, self._proxies = chance, proxies
        self._answers_left = chance.randint(1, 20)
        self.count = 0

    def after_an_answer(self) -> None:
        """Cut now and then."""
        self._answers_left -= 1
        if self._answers_left <= 0:
            self._chance.choice(self._proxies).cut()
            self._answers_left = self._chance.randint(5, 30)
            self.count += 1


def through(proxy: Proxy, url: str) -> str:
    """`url` by way of the proxy."""
    return url.replace(f":{urlsplit(url).port}/", f":{proxy.port}/")
