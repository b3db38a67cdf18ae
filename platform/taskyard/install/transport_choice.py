"""Choose the transport that reads an installed app's queues: Taskyard's or kombu's.

Taskyard's is chosen if tasks are protected at a single Redis. kombu's Redis transport takes a
message and records it in two steps, and a killed worker's messages wait for the visibility timeout.
Taskyard's transport needs nothing of the records' server: the broker may be another.
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
    """The chosen transport: `own` is the name of Taskyard's, None if kombu's stays.

    `why` is the reason; it is empty if there is nothing to choose, at another broker than
    Redis.
    """

    own: str | None = None
    why: str = ""
    visibility_timeout_s: float = _VISIBILITY_S

    @property
    def unprotected(self) -> tuple[str, ...]:
        """Return the losses that `protect` cannot prevent with kombu's Redis transport."""
        if not self.why:
            return ()
        wait = f"visibility_timeout, {self.visibility_timeout_s:g} s here"
        begun = (
            "the jobs that the worker had begun return soon after their lease ends, if "
            "another worker protects them"
        )
        return (
            "a message is lost if its worker is killed between taking the message and recording it",
            "a list entry that is not a message ends the worker that takes it, or is dropped",
            f"messages of a killed worker return to their queues after {wait}; {begun}",
        )


def choose_transport(broker: AppBroker, modes: Modes, asked: bool | None) -> TransportChoice:
    """Return the transport for an app's workers and producers.

    `asked` is the argument that `install` got; None lets Taskyard choose. Raises
    `InvalidSettings` if Taskyard's transport is requested and cannot read this broker.
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
        return "install was called with transport=False"
    if not modes.protect:
        return "no task is protected, by neither `mode` nor `tasks` of install"
    if broker.own_transport is None:
        return (
            "the broker's URL names a socket or several servers, which only kombu's transport reads"
        )
    if broker.reads_elsewhere:
        return "the app's workers read from another broker than the app publishes to"
    if broker.transport_class not in (kombu_redis.Transport, kombu_redis.SentinelTransport):
        return f"the app names a transport of its own, {broker.transport_class.__name__}"
    return ""


def own_options(namespace: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the app's `broker_transport_options` for Taskyard's transport; the app's own win.

    With a fixed order of queues, no message of a later queue goes before one of an earlier
    queue, because the app asks for that.
    """
    ours: dict[str, Any] = {
        "heartbeats_key": f"{namespace}:heartbeats",
        "unacked_restore_interval": 1,
    }
    if options.get("queue_order_strategy", _ROTATES) != _ROTATES:
        ours["fairness"] = 0
    return {**ours, **options}
