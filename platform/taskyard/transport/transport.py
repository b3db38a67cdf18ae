"""The Redis transport: kombu's, with Taskyard's channel and poller, and with a heartbeat."""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

from kombu.transport import redis as kombu_redis
from redis.exceptions import ResponseError

from taskyard.transport.channel import Channel, SentinelChannel
from taskyard.transport.owner_descriptions import HEARTBEAT_S
from taskyard.transport.queue_notifications import POLL_S
from taskyard.wire.redacted_logs import logger

__all__ = ["Poller", "SentinelTransport", "Transport"]


log = logger(__name__)


# Whatever a server refuses may pass, by itself or with a new connection: a failover, a full disk or
# memory, a withdrawn permission, a key of another type. It must not end a worker.
_PASSING: Final = (ResponseError,)

# Less than the second of the server's own mutex and Celery's timer.
_SWEEP_S: Final = 0.9


class Poller(kombu_redis.MultiChannelPoller):  # type: ignore[misc]
    """kombu's poller, which also sends the acknowledgements that wait for no pop."""

    def on_poll_start(self) -> None:
        """Start a tick: ask for messages, then send the remaining acknowledgements."""
        for channel in self._channels:
            channel.listen_if_due()
            channel.pops.ask_if_overdue()
        super().on_poll_start()
        for channel in self._channels:
            if channel.has_work():
                channel.qos.flush_left()

    def _register_BRPOP(self, channel: Any) -> None:  # noqa: N802 - kombu's name
        self._follow(channel, channel.client, "BRPOP")
        super()._register_BRPOP(channel)

    def _register_LISTEN(self, channel: Any) -> None:  # noqa: N802 - kombu's name
        self._follow(channel, channel.subclient, "LISTEN")
        super()._register_LISTEN(channel)

    def _follow(self, channel: Any, client: Any, kind: str) -> None:
        """Watch the new socket after redis-py has reconnected.

        redis-py reconnects by itself, at a health check or a send; without this, the poll
        would wait on the old socket.
        """
        connection = getattr(client, "connection", None)
        watched = self._chan_to_sock.get((channel, client, kind))
        if connection is None or watched is None:
            return
        if connection._sock is not None and connection._sock is not watched:
            self._register(channel, client, kind)

    def beat(self) -> None:
        """Write the heartbeats of all consumers in this process."""
        for channel in self._channels:
            if channel.has_work():
                channel.ownership.beat()

    def maybe_restore_messages(self) -> None:
        """Return messages of dead consumers; at most once a second, however often it is called."""
        now = monotonic()
        if now - self._swept_at >= _SWEEP_S:
            self._swept_at = now
            super().maybe_restore_messages()

    def get(self, callback: Any, timeout: float | None = None) -> Any:
        """Wait for one event, at most a second.

        A loop without timers must also write heartbeats.
        """
        longest = 1.0 if timeout is None else min(timeout, 1.0)
        if monotonic() - self._beaten_at >= HEARTBEAT_S:
            self._beaten_at = monotonic()
            self.beat()
            self.maybe_restore_messages()
        for channel in self._channels:
            channel.pops.ask_if_overdue()
        if any(channel.pops.polls for channel in self._channels):
            longest = min(longest, POLL_S)
        return super().get(callback, timeout=longest)

    _beaten_at = _swept_at = float("-inf")


class _OwnPoller:
    """A kombu Redis transport, changed where Taskyard's transport differs from kombu's."""

    in_loop = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Join Celery's event loop, to send acknowledgements and heartbeats in time."""
        self.in_loop = True
        self._loop = loop
        known = set(loop.on_tick)
        super().register_with_event_loop(connection, loop)  # type: ignore[misc]
        self._ticks = loop.on_tick - known
        for entry in self._entries:
            entry.cancel()
        self._entries = (
            loop.call_repeatedly(HEARTBEAT_S, self._beat),
            loop.call_repeatedly(HEARTBEAT_S, self._start_polling, loop),
        )

    def close_connection(self, connection: Any) -> None:
        """Close every channel and leave the event loop.

        kombu would continue to call the transport from the loop.
        """
        if self._loop is not None:
            self._loop.on_tick -= self._ticks
        super().close_connection(connection)  # type: ignore[misc]

    _loop: Any = None
    _ticks: frozenset[Any] | set[Any] = frozenset()
    _entries: tuple[Any, ...] = ()
    _clock: Any = None

    def tick_within(self, seconds: float) -> None:
        """Make the event loop run again within `seconds`, even if nothing happens."""
        self._loop.call_later(seconds, _nothing)

    def _beat(self) -> None:
        try:
            self.cycle.beat()
        except self.connection_errors as error:  # type: ignore[attr-defined]
            log.warning(
                "the Redis consumer's heartbeat was not written; after 10 s without one, "
                "other workers take its messages back: %s",
                error,
                extra={"action": "heartbeat_lost"},
            )

    def _start_polling(self, loop: Any) -> None:
        """Start a timer that makes the event loop poll, if Redis refuses to announce messages."""
        if self._clock is None and any(channel.pops.polls for channel in self.cycle._channels):
            self._clock = loop.call_repeatedly(POLL_S, _nothing)


class Transport(_OwnPoller, kombu_redis.Transport):  # type: ignore[misc]
    """The transport for `redis://` and `rediss://` URLs."""

    Channel = Channel
    connection_errors = (*kombu_redis.Transport.connection_errors, *_PASSING)


class SentinelTransport(_OwnPoller, kombu_redis.SentinelTransport):  # type: ignore[misc]
    """The transport for `sentinel://` URLs."""

    Channel = SentinelChannel
    connection_errors = (*kombu_redis.SentinelTransport.connection_errors, *_PASSING)


def _nothing() -> None:
    """Do nothing; the timer that calls this only wakes the event loop."""
