"""Check whether RabbitMQ's user may configure, write and read what Taskyard uses there.

No client can query permissions. RabbitMQ checks them before anything else, so each one is tried
with a request that it refuses for another reason, or that changes nothing.
"""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

from amqp import Message
from amqp.exceptions import AccessRefused
from kombu import Connection
from kombu.transport.native_delayed_delivery import CELERY_DELAYED_DELIVERY_EXCHANGE, level_name

from taskyard.broker.delay_exchanges import delay_prefix, delay_type
from taskyard.deadletters import exchange, mirror_queue
from taskyard.ops.cli.checks.finding import Finding
from taskyard.settings import Settings

__all__ = ["look_at_rights"]

CONFIGURE, WRITE, READ = "configure", "write", "read"
_DEFAULT_EXCHANGE: Final = "amq.default"
Probe = Callable[[Any], object]


def look_at_rights(broker: Connection, settings: Settings) -> Iterator[Finding]:
    """Return one finding: the user may do all that is needed, or a list of the missing rights.

    Raises the broker's connection errors.
    """
    lacking: dict[str, list[str]] = {}
    for right, name, probe in _probes(broker, settings):
        # If a request needs two rights on one exchange, the refusal does not say which one is
        # missing.
        unclear = right == WRITE and name in lacking.get(READ, ())
        if not unclear and name not in lacking.get(right, ()) and _refused(broker, name, probe):
            lacking.setdefault(right, []).append(name)
    user = broker.userid or "guest"
    if not lacking:
        yield Finding.ok("broker", f"user {user} may configure, write and read what it needs")
        return
    text = "; ".join(f"{right} {', '.join(names)}" for right, names in lacking.items())
    where = shlex.quote(broker.virtual_host or "/")
    yield Finding.error(
        "broker",
        f"user {user} may not {text}",
        f"Ask the broker's administrator to extend the three patterns (configure, write, read) "
        f"of: rabbitmqctl "
        f"set_permissions -p {where} {user} …; docs/access.md lists them.",
        exit_code=4,
    )


def _refused(broker: Connection, name: str, probe: Probe) -> bool:
    """Return whether a permission on `name` is missing.

    A refusal closes the channel, so use a new one.
    """
    channel = broker.connection.channel()
    try:
        probe(channel)
    except AccessRefused as error:
        return f"'{name}'" in str(error)
    except broker.channel_errors:
        return False
    if channel.is_open:
        channel.close()
    return False


def _probes(broker: Connection, settings: Settings) -> Iterator[tuple[str, str, Probe]]:
    """Yield (right, queue or exchange, request); for a binding the queue's side comes first."""
    letters, mirror = exchange(settings).name, mirror_queue(settings).name
    work = [settings.broker_name(name) for name in settings.queues]
    control, events = (settings.broker_name(name) for name in ("celery", "celeryev"))
    mailbox = f"check@{uuid.uuid4().hex[:8]}.{control}.pidbox"
    delays = delay_prefix(settings, delay_type(broker.connection.server_properties))
    level, last = level_name(0, delays), f"{delays}_{CELERY_DELAYED_DELIVERY_EXCHANGE}"
    heard = f"{events}.{uuid.uuid4().hex}"
    for queue in (*work, mirror, mailbox, heard, level):
        yield CONFIGURE, queue, _declare_queue(queue)
        yield READ, queue, _consume(queue)
        yield WRITE, queue, _unbind(queue, "amq.topic")
    for name in (letters, f"{control}.pidbox", f"reply.{control}.pidbox", events, level, last):
        yield CONFIGURE, name, _declare_exchange(name)
        yield READ, name, _unbind(mailbox, name)
        yield WRITE, name, _unbind_exchange(name)
    yield WRITE, _DEFAULT_EXCHANGE, _publish


def _declare_queue(name: str) -> Probe:
    # No client can declare a queue with a negative length.
    arguments = {"x-max-length": -1}
    return lambda channel: channel.queue_declare(
        name, durable=True, auto_delete=False, arguments=arguments
    )


def _declare_exchange(name: str) -> Probe:
    arguments = {"alternate-exchange": 5}
    return lambda channel: channel.exchange_declare(
        name, "topic", durable=True, auto_delete=False, arguments=arguments
    )


def _consume(name: str) -> Probe:
    return lambda channel: channel.basic_consume(name, arguments={"x-priority": "none"})


def _unbind(queue: str, name: str) -> Probe:
    """Unbind a queue: needs the right to write to the queue and to read from the exchange."""
    return lambda channel: channel.queue_unbind(queue, name, uuid.uuid4().hex)


def _unbind_exchange(name: str) -> Probe:
    """Unbind an exchange: needs the rights to write to and read from the exchange."""
    return lambda channel: channel.exchange_unbind(name, name, uuid.uuid4().hex)


def _publish(channel: Any) -> None:
    """Publish to no queue; a publication has no answer, so the next request reports the refusal."""
    channel.basic_publish(Message(b""), exchange="", routing_key=f"check.{uuid.uuid4().hex}")
    channel.basic_qos(0, 1, False)
