"""Celery's receiver of control commands, which hands on how a signed broadcast was addressed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from kombu.pidbox import Node

from taskyard.access.broadcast_calls import BROADCASTS
from taskyard.wire.credential_argument import CREDENTIAL

__all__ = ["TARGET", "BroadcastNode", "receive_broadcasts"]

TARGET: Final = "taskyard_target"
"""The field of a command's state with a short hash of the receivers; empty for all workers."""
_ADDRESSES: Final = ("destination", "pattern", "matcher")
_HASH_LENGTH: Final = 16


class BroadcastNode(Node):  # type: ignore[misc]
    """Gives a signed broadcast its credential alone, whatever arguments its sender gave."""

    def dispatch(
        self,
        method: Any,
        arguments: Any = None,
        reply_to: Any = None,
        ticket: Any = None,
        **options: Any,
    ) -> Any:
        """Call the command as kombu does."""
        if isinstance(method, str) and method in BROADCASTS:
            self.state[TARGET] = _target(options)
            arguments = {CREDENTIAL: _credential(arguments)}
        return super().dispatch(method, arguments, reply_to, ticket, **options)


def receive_broadcasts(app: Any) -> None:
    """Have a worker of this app receive control commands by `BroadcastNode`.

    An app may have a receiver of its own, which stays in use below it.
    """
    own = app.control.mailbox.node_cls
    if own is Node:
        app.control.mailbox.node_cls = BroadcastNode
    elif not issubclass(own, BroadcastNode):
        app.control.mailbox.node_cls = type(own.__name__, (BroadcastNode, own), {})


def _credential(arguments: Any) -> object:
    """Return the credential; arguments of another form are a credential that has no form."""
    if not arguments:
        return None
    return arguments.get(CREDENTIAL) if isinstance(arguments, Mapping) else arguments


def _target(options: Mapping[str, Any]) -> str:
    given = [options.get(name) for name in _ADDRESSES]
    if not any(given):
        return ""
    text = json.dumps(given, sort_keys=True, default=str)
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:_HASH_LENGTH]
