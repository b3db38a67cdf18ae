"""Celery's receiver of control commands: it drops what is no command, and judges each that is one.

It hands on how a signed broadcast was addressed, and gives audited and mapped commands to
`carry_out_commands`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from inspect import signature
from typing import Any, Final

from kombu.pidbox import Node

from taskyard.access.broadcast_calls import BROADCASTS
from taskyard.engine.carry_out_commands import CommandReceived, carry_out
from taskyard.engine.command_faults import fault_of_control_message
from taskyard.engine.control_command_table import verb_of
from taskyard.engine.signed_broadcasts import TARGET
from taskyard.wire.credential_argument import CREDENTIAL
from taskyard.wire.redacted_logs import logger
from taskyard.wire.redaction import redact_text

__all__ = ["BroadcastNode", "drop_control_message", "receive_broadcasts"]

log = logger(__name__)

_ADDRESSES: Final = ("destination", "pattern", "matcher")
_HASH_LENGTH: Final = 16
# What kombu's clients write; a broker may add headers of its own on the way to one worker.
_HEADERS: Final = ("clock", "expires")


class BroadcastNode(Node):  # type: ignore[misc]
    """Receives commands as kombu does, and carries out those with an effect by Taskyard's rules."""

    _message_hash = ""
    _target = ""

    def handle_message(self, body: Any, message: Any = None) -> Any:
        """Handle a command for this worker; log and drop a message that is none."""
        fault = fault_of_control_message(body, message, self.hostname)
        if fault is not None:
            return drop_control_message(fault)
        self._message_hash = _hash_of(body, message)
        return super().handle_message(body, message)

    dispatch_from_message = handle_message

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Log and drop a message that cannot be decoded; pools of greenlets call this method."""
        drop_control_message(exc)

    def dispatch(
        self,
        method: Any,
        arguments: Any = None,
        reply_to: Any = None,
        ticket: Any = None,
        **options: Any,
    ) -> Any:
        """Call the command as kombu does; a signed broadcast gets its credential alone."""
        self._target = _target(options)
        if isinstance(method, str) and method in BROADCASTS:
            self.state[TARGET] = self._target
            arguments = {CREDENTIAL: _credential(arguments)}
        return super().dispatch(method, arguments, reply_to, ticket, **options)

    def handle(self, method: str, arguments: Any = None) -> Any:
        """Carry out one command, and return the reply to its sender."""
        arguments = dict(arguments or {})
        if verb_of(method, arguments) is None:
            return self._run(method, arguments)
        received = CommandReceived(
            name=method,
            credential=arguments.pop(CREDENTIAL, None),
            arguments=arguments,
            broadcast=self._message_hash or _hash_of(arguments, None),
            target=self._target,
        )
        run = partial(self._run, method)
        return carry_out(self.state.app.taskyard, self.hostname, received, run)

    def _run(self, method: str, arguments: Mapping[str, Any]) -> Any:
        """Do what Celery does; a command that it could not call is refused in one line."""
        handler = self.handlers.get(method)
        fault = "this worker has no such command"
        if handler is not None:
            try:
                signature(handler).bind(self.state, **arguments)
            except TypeError as error:
                fault = str(error)
            else:
                return super().handle(method, arguments)
        text = redact_text(f"the control command {method:.60} cannot be called: {fault}"[:500])
        log.warning(text, extra={"action": "command_refused"})
        return {"error": text}


def drop_control_message(fault: object) -> None:
    """Log that a control message is dropped; its channel stays open."""
    log.warning(
        "a control message is dropped, because it is no command: %s",
        redact_text(str(fault)[:500]),
        extra={"action": "control_message_dropped"},
    )


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
    return _short_hash(given) if any(given) else ""


def _hash_of(body: Mapping[str, Any], message: Any) -> str:
    """Return the same text in every worker that receives the message."""
    headers = {} if message is None else message.headers or {}
    parts = [body, [headers.get(name) for name in _HEADERS]]
    text = json.dumps(parts, skipkeys=True, default=str)
    return sha256(text.encode(errors="surrogatepass")).hexdigest()


def _short_hash(value: object) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:_HASH_LENGTH]
