"""Check RabbitMQ: reachable, new enough, work queues absent or as our workers declare them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from kombu import Connection

from taskyard.broker import connection, describe
from taskyard.broker.rabbit_queue_losses import losses, policy_command
from taskyard.errors import ServerUnreachable
from taskyard.ops.cli.checks.finding import Finding
from taskyard.ops.cli.checks.rabbitmq_rights import look_at_rights
from taskyard.queues import Declared, RabbitQueue, choose, look_at, rabbit_queues
from taskyard.queues.rabbit_queue_type import version_of
from taskyard.settings import Settings
from taskyard.wire import redact_url

__all__ = ["judge_choice", "judge_version", "look_at_broker"]

_MINIMUM: Final = (3, 10)


def look_at_broker(settings: Settings) -> Iterator[Finding]:
    """Check the broker; declares nothing that does not exist already.

    Raises `ServerUnreachable`.
    """
    with connection(settings) as broker:
        _connect(broker, settings.need_broker_url())
        properties = broker.connection.server_properties
        yield judge_version(properties)
        yield judge_choice(settings, properties)
        yield from _queues(broker, settings)
        yield from look_at_rights(broker, settings)


def judge_version(facts: dict[str, Any]) -> Finding:
    """Check the version in the server's greeting."""
    version = str(facts.get("version") or "")
    if version_of(facts) < _MINIMUM:
        wanted = ".".join(str(number) for number in _MINIMUM)
        return Finding.error(
            "broker", f"RabbitMQ {version or '(no version)'} is too old", f"Upgrade to {wanted}."
        )
    return Finding.ok("broker", f"RabbitMQ {version} answers")


def judge_choice(settings: Settings, facts: dict[str, Any]) -> Finding:
    """Report the queue type that workers choose here, and why.

    The finding is a warning if a setting cannot be fulfilled.
    """
    choice, text = choose(facts, settings.rabbitmq_queue_type), describe(settings, facts)
    if choice.cost:
        return Finding.warning("broker", text, "Change one of the two if you do not want this.")
    return Finding.ok("broker", text)


def _connect(broker: Connection, url: str) -> None:
    lost = (*broker.connection_errors, *broker.channel_errors)
    try:
        broker.connect()
    except lost as error:
        remedy = (
            "Start it, or correct TASKYARD_BROKER_URL (host, virtual host, user and its "
            "permissions); `taskyard check` shows when it answers."
        )
        raise ServerUnreachable("RabbitMQ", redact_url(url), error, remedy) from error


def _queues(broker: Connection, settings: Settings) -> Iterator[Finding]:
    missing, present = [], []
    properties = broker.connection.server_properties
    for queue in rabbit_queues(settings):
        try:
            found = look_at(broker.connection, queue.name)
        except broker.channel_errors as error:
            yield Finding.error(
                "broker", f"queue {queue.name}: {error}", "Ask the broker's administrator."
            )
            continue
        if found is None:
            missing.append(queue.name)
        elif lost := losses(queue, found, properties):
            yield _differing(queue, found, lost, broker)
        else:
            present.append(queue.name)
    if present:
        yield Finding.ok("broker", f"work queues as they should be: {', '.join(present)}")
    if missing:
        yield Finding.ok("broker", f"work queues that will be declared: {', '.join(missing)}")


def _differing(queue: RabbitQueue, found: Declared, lost: list[str], broker: Connection) -> Finding:
    properties = broker.connection.server_properties
    command = policy_command(queue, found, properties, broker.virtual_host)
    remedy = "Drain it, delete it and start a worker, which declares it again."
    if command:
        remedy += (
            " If that is not possible, a policy can give it the dead-letter exchange, but no "
            "priorities. A queue follows one policy only: merge this one into an existing policy. "
            f"Run: {command}"
        )
    text = f"queue {queue.name} exists and is used as it is. What this costs: {'; '.join(lost)}"
    return Finding.warning("broker", text, remedy)
