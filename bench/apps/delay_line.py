"""`python -m bench.apps.delay_line <host> <port> <ms>`: a network of a few milliseconds each way.

Prints its own port and forwards to host and port until it is ended. What arrives is passed on that
much later, as a longer wire does it: nothing that follows is held up. It is a process of its own,
so that it takes no time of those who are measured.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable

__all__ = ["main"]


class _End(asyncio.Protocol):
    """One end of a wire: what it gets leaves the other end later."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._loop = asyncio.get_running_loop()
        self._other: asyncio.Transport | None = None
        self._early: list[Callable[[asyncio.Transport], None]] = []
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send each piece at once, as Redis and its clients do."""
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if isinstance(transport, asyncio.Transport):
            self.transport = transport

    def joined(self, other: asyncio.Transport | None) -> None:
        """Pass on what came before the other end was there."""
        self._other = other
        for act in self._early if other is not None else ():
            self._act(act)

    def data_received(self, data: bytes) -> None:
        """Pass it on later."""
        self._loop.call_later(self._delay_s, self._act, lambda other: other.write(data))

    def connection_lost(self, _: Exception | None) -> None:
        """Hang up later."""
        self._loop.call_later(self._delay_s, self._act, lambda other: other.close())

    def _act(self, act: Callable[[asyncio.Transport], None]) -> None:
        if self._other is None:
            self._early.append(act)
        elif not self._other.is_closing():
            act(self._other)


async def _serve(host: str, port: int, delay_s: float) -> None:
    loop = asyncio.get_running_loop()
    joining: set[asyncio.Task[None]] = set()

    async def join(near: _End) -> None:
        _, far = await loop.create_connection(lambda: _End(delay_s), host, port)
        far.joined(near.transport)
        near.joined(far.transport)

    def accepted() -> _End:
        near = _End(delay_s)
        task = loop.create_task(join(near))
        joining.add(task)
        task.add_done_callback(joining.discard)
        return near

    server = await loop.create_server(accepted, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    """Forward until ended."""
    host, port, ms = sys.argv[1:]
    asyncio.run(_serve(host, int(port), float(ms) / 1000))


if __name__ == "__main__":
    main()
