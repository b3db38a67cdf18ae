"""Which transport reads an installed app's queues: Taskyard's if it protects at one Redis.

kombu's Redis transport pops a message and records it in two steps, and a killed worker's messages
wait for the visibility timeout. Ours needs nothing of the records' server: the broker may be
another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kombu.transport import redis as kombu_redis

from taskyard.errors import InvalidSettings
from taskyard.install.app_broker import AppBroker
from taskyard.install.modes import Modes

__all__ = ["TransportChoice", "choose_transport", "own_options"]

_VISIBILITY_S: Final = 3600
_ROTATES: Final = "round_robin"


@dataclass(frozen=True, slots=True)
class TransportChoice:
    """`own` is the name of our transport, None if kombu's stays, for the reason `why`.

    `why` is also empty if there is nothing to choose: at another broker than Redis.
    """

    own: str | None = None
    why: str = ""
    visibility_timeout_s: float = _VISIBILITY_S

    @property
    def unprotected(self) -> tuple[str, ...]:
        """Return what `protect` cannot prevent with kombu's Redis transport."""
        if not self.why:
            return ()
        wait = f"visibility_timeout, {self.visibility_timeout_s:g} s here"
        begun = (
            "jobs that it had begun come back soon after their lease, if another worker protects"
        )
        return (
            "a message is lost if its worker is killed between the pop and its record",
            "a list entry that is not a message ends the worker that pops it, or is dropped",
            f"messages of a killed worker come back after {wait}; {begun}",
        )


def choose_transport(broker: AppBroker, modes: Modes, asked: bool | None) -> TransportChoice:
    """Return the transport for an app's workers and producers.

    `asked` is what `install` was given; None decides by itself. Raises `InvalidSettings` if ours is
    requested and cannot read this broker.
    """
    if broker.kind != "redis" and asked is not True:
        return TransportChoice()
    own = broker.own_transport
    if asked is True and own is None:
        raise InvalidSettings(
            "install(transport=True) needs a broker at redis://, rediss:// or sentinel://, got "
            f"{broker.kind if broker.kind != 'redis' else 'redis+socket'}://"
        )
    why = "" if asked is True else _why_kombus(broker, modes, asked)
    visibility_s = float(broker.transport_options.get("visibility_timeout") or _VISIBILITY_S)
    return TransportChoice(None if why else own, why, visibility_s)


def _why_kombus(broker: AppBroker, modes: Modes, asked: bool | None) -> str:
    if asked is False:
        return "install says transport=False"
    if not modes.protect:
        return "neither mode nor tasks of install say protect"
    if broker.own_transport is None:
        return "its URL names a socket or several servers, which only kombu's reads"
    if broker.reads_elsewhere:
        return "its workers read from another broker than it publishes to"
    if broker.transport_class not in (kombu_redis.Transport, kombu_redis.SentinelTransport):
        return f"the app names a transport of its own, {broker.transport_class.__name__}"
    return ""


def own_options(namespace: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the app's `broker_transport_options` for our transport: the app's own come last.

    A fixed order of queues is the app's wish: nothing of a later queue goes before an earlier
    one's.
    """
    ours: dict[str, Any] = {
        "heartbeats_key": f"{namespace}:heartbeats",
        "unacked_restore_interval": 1,
    }
    if options.get("queue_order_strategy", _ROTATES) != _ROTATES:
        ours["fairness"] = 0
    return {**ours, **options}
