"""Accept a queue that exists on RabbitMQ, and find how it differs from the wanted one.

The server refuses a different declaration (error 406) and names only one argument that differs.
This module takes over each argument that the server names, and declares again. The declaration that
the server accepts then shows all arguments of the queue.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from amqp.exceptions import ChannelError, NotFound, PreconditionFailed

__all__ = ["Declared", "declare_or_accept", "inquire", "look_at"]

# A queue has about twenty arguments and flags; more corrections than that are no progress.
_MOST_CORRECTIONS: Final = 30
_DIFFERS: Final = re.compile(r"inequivalent arg '(?P<name>[^']+)' .*but current is (?P<is>.*)$")
_VALUE: Final = re.compile(r"(?:the value )?'(?P<value>.*?)'(?: of type '(?P<type>\w+)')?$")
_UNFIT: Final = re.compile(r"invalid arg '[^']+' .* of queue type rabbit_classic_queue")
_FLAGS: Final = ("durable", "auto_delete", "exclusive")


@dataclass(frozen=True, slots=True)
class Declared:
    """An existing queue: its arguments and flags, and the server's answer to the declaration."""

    name: str
    arguments: Mapping[str, Any]
    flags: Mapping[str, bool] = field(default_factory=lambda: {"durable": True})
    answer: Any = None

    def differences(self, wanted: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Return each argument or flag that differs, as name -> (wanted, found).

        None stands for a missing value.
        """
        found = {**_plain(self.arguments), **{k: v for k, v in self.flags.items() if _odd(k, v)}}
        expected = _plain(wanted)
        names = sorted({*found, *expected})
        pairs = {name: (expected.get(name), found.get(name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def declare_or_accept(connection: Any, name: str, wanted: Mapping[str, Any]) -> Declared:
    """Declare the durable queue `name`; accept an existing one with other arguments.

    `connection` is py-amqp's. Raises its channel errors for every other refusal.
    """
    try:
        answer = _declare(connection, name, wanted, {"durable": True})
    except PreconditionFailed as error:
        if _DIFFERS.search(str(error.reply_text)) is None:
            raise
        return _as_it_is(connection, name)
    return Declared(name, dict(wanted), answer=answer)


def look_at(connection: Any, name: str) -> Declared | None:
    """Look up the queue `name`; return None if it does not exist.

    Raises py-amqp's channel errors.
    """
    try:
        return _as_it_is(connection, name)
    except NotFound:
        return None


def inquire(connection: Any, name: str) -> Any:
    """Return the server's `message_count` and `consumer_count` for the queue `name`.

    `connection` is kombu's or py-amqp's. Raises py-amqp's channel errors, for example
    `NotFound`. The call uses a separate channel, because the server closes a channel after a
    refusal.
    """
    with connection.channel() as channel:
        return channel.queue_declare(queue=name, passive=True)


def _as_it_is(connection: Any, name: str) -> Declared:
    arguments: dict[str, Any] = {}
    flags = {"durable": True}
    for _ in range(_MOST_CORRECTIONS):
        # Only an existing queue may be declared: this check alone would otherwise create a queue
        # that was deleted meanwhile, without its arguments. A deletion between these two lines
        # still does.
        inquire(connection, name)
        try:
            answer = _declare(connection, name, arguments, flags)
        except PreconditionFailed as error:
            if not _correct(str(error.reply_text), arguments, flags):
                raise
        else:
            return Declared(name, arguments, flags, answer)
    raise ChannelError(
        f"RabbitMQ still names other arguments of queue {name} after {_MOST_CORRECTIONS} "
        f"corrections: another program seems to declare it again and again. Stop that program, "
        f"see rabbitmqctl list_queues name arguments, then try again"
    )


def _declare(
    connection: Any, name: str, arguments: Mapping[str, Any], flags: Mapping[str, bool]
) -> Any:
    # On a separate channel: a refusal closes it, with its consumers.
    with connection.channel() as channel:
        options = {"durable": False, "auto_delete": False, **flags}
        return channel.queue_declare(queue=name, arguments=dict(arguments), **options)


def _correct(said: str, arguments: dict[str, Any], flags: dict[str, bool]) -> bool:
    """Take over the argument that the server names; return False if its answer names none."""
    if _UNFIT.search(said) and "x-queue-type" not in arguments:
        arguments["x-queue-type"] = "quorum"
        return True
    named = _DIFFERS.search(said)
    value = None if named is None else _VALUE.search(named["is"].strip())
    if named is None or value is None:
        return False
    if named["name"] in _FLAGS:
        flags[named["name"]] = value["value"] == "true"
        return True
    arguments[named["name"]] = _typed(value["value"], value["type"])
    return True


def _typed(value: str, kind: str | None) -> Any:
    if kind in ("longstr", None) or not value.lstrip("-").isdecimal():
        return value == "true" if kind == "bool" else value
    return int(value)


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the queue's arguments without those that the server sets by default."""
    return {k: v for k, v in arguments.items() if (k, v) != ("x-queue-type", "classic")}


def _odd(flag: str, value: bool) -> bool:
    return value is not (flag == "durable")
