"""A stand-in for PgBouncer: it refuses the start parameters that PgBouncer refuses."""

from __future__ import annotations

import asyncio
import struct
import threading
from types import TracebackType
from typing import Final, Self

__all__ = ["Pooler"]

_ENCRYPTION: Final = (80877103, 80877104)  # SSLRequest, GSSENCRequest
# https://www.pgbouncer.org/config.html#ignore_startup_parameters
_TAKEN: Final = {
    "user",
    "database",
    "client_encoding",
    "datestyle",
    "timezone",
    "standard_conforming_strings",
    "application_name",
}


class Pooler:
    """Listens on `127.0.0.1:port` while the context is open and hands sound starts on."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pooler", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self.started: list[dict[str, str]] = []
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        ).result(timeout=30)
        self.port = server.sockets[0].getsockname()[1]
        self._server = server
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(timeout=30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=30)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            start = await self._start(reader, writer)
            words = start[8:].split(b"\x00")
            pairs = zip(words[::2], words[1::2], strict=False)
            given = {name.decode(): value.decode() for name, value in pairs if name}
            self.started.append(given)
            refused = [name for name in given if name not in _TAKEN]
            if refused:
                writer.write(_refusal(f"unsupported startup parameter: {refused[0]}"))
                await writer.drain()
                return
            await self._forward(start, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # whoever connected has left
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _start(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        while True:
            head = await reader.readexactly(8)
            length, code = struct.unpack("!II", head)
            if code not in _ENCRYPTION:
                return head + await reader.readexactly(length - 8)
            writer.write(b"N")
            await writer.drain()

    async def _forward(
        self, start: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        answers, asks = await asyncio.open_connection(*self._upstream)
        asks.write(start)
        try:
            await asyncio.wait(
                [
                    asyncio.ensure_future(_pump(reader, asks)),
                    asyncio.ensure_future(_pump(answers, writer)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            asks.close()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()
    except ConnectionError:
        return  # the other side has left, and the caller closes both


def _refusal(said: str) -> bytes:
    fields = b"SFATAL\x00VFATAL\x00C08P01\x00M" + said.encode() + b"\x00\x00"
    return b"E" + struct.pack("!I", 4 + len(fields)) + fields
