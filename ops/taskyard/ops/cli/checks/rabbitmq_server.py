"""RabbitMQ: reachable, new enough, its work queues absent or as our workers declare them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any, Final

from kombu import Connection, Queue

from taskyard.broker import connection
from taskyard.errors import ServerUnreachable
from taskyard.ops.cli.checks.finding import Finding
from taskyard.queues import kombu_queues
from taskyard.settings import Settings
from taskyard.wire import redact_url

__all__ = ["judge_version", "look_at", "policy_command"]

_MINIMUM: Final = (3, 10)
_NOT_FOUND: Final = 404
_OTHER_ARGUMENTS: Final = 406


def look_at(settings: Settings) -> Iterator[Finding]:
    """What is to be said about the broker; declares nothing that is not there already.

    Raises `ServerUnreachable`.
    """
    with connection(settings) as broker:
        _connect(broker, settings.need_broker_url())
        yield judge_version(broker.connection.server_properties)
        yield from _queues(broker, settings)


def judge_version(facts: dict[str, Any]) -> Finding:
    """Whether the version in the server's greeting is new enough."""
    version = _text(facts.get("version"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers < _MINIMUM:
        wanted = ".".join(str(number) for number in _MINIMUM)
        return Finding.error(
            "broker", f"RabbitMQ {version or '(no version)'} is too old", f"Upgrade to {wanted}."
        )
    return Finding.ok("broker", f"RabbitMQ {version} answers")


def policy_command(queue: Queue, vhost: str) -> str:
    """The command that gives an existing queue the dead-letter exchange."""
    arguments = queue.queue_arguments
    names = ("dead-letter-exchange", "dead-letter-routing-key")
    definition = json.dumps({name: arguments[f"x-{name}"] for name in names})
    words = ["--vhost", vhost, "--apply-to", "queues", f"taskyard-{queue.name}"]
    return shlex.join(
        ["rabbitmqctl", "set_policy", *words, f"^{re.escape(queue.name)}$", definition]
    )


def _connect(broker: Connection, url: str) -> None:
    lost = (*broker.connection_errors, *broker.channel_errors)
    try:
        broker.connect()
    except lost as error:
        remedy = (
            "Start it, or correct TASKYARD_BROKER_URL (host, virtual host, user and its "
            "permissions); `taskyard check` tells when it answers."
        )
        raise ServerUnreachable("RabbitMQ", redact_url(url), error, remedy) from error


def _queues(broker: Connection, settings: Settings) -> Iterator[Finding]:
    missing, present = [], []
    for queue in kombu_queues(settings, rabbit=True):
        code, said = _declared(broker, queue, passive=True)
        if code is None:
            code, said = _declared(broker, queue, passive=False)
        if code is None:
            present.append(queue.name)
        elif code == _NOT_FOUND:
            missing.append(queue.name)
        elif code == _OTHER_ARGUMENTS:
            yield _other_arguments(queue, said, broker.virtual_host)
        else:
            yield Finding.error("broker", f"queue {queue.name}: {said}", "Ask who runs it.")
    if present:
        yield Finding.ok("broker", f"work queues as they should be: {', '.join(present)}")
    if missing:
        yield Finding.ok("broker", f"work queues that will be declared: {', '.join(missing)}")


def _declared(broker: Connection, queue: Queue, *, passive: bool) -> tuple[int | None, str]:
    """The server's code and words if it refuses, on a channel that is thrown away: it closes it.

    `passive` asks whether the queue is there; otherwise also whether its arguments are ours.
    """
    try:
        with broker.channel() as channel:
            queue(channel).queue_declare(passive=passive)
    except broker.channel_errors as error:
        return int(error.code), _text(error.reply_text)
    return None, ""


def _other_arguments(queue: Queue, said: str, vhost: str) -> Finding:
    return Finding.error(
        "broker",
        f"queue {queue.name} exists with other arguments, so our declaration is refused ({said})",
        "Drain and delete it, and it is declared anew. Where that cannot be, this policy gives it "
        "the dead-letter exchange (a queue follows one policy: merge it with its own), but no "
        f"policy can give it priorities. Run: {policy_command(queue, vhost)}",
    )


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
