"""Declare Celery's native delay exchanges on RabbitMQ, in Taskyard's namespace.

Taskyard's queues are bound to them. A delayed message passes through levels, which are queues that
each hold it for a power of two seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from time import sleep
from typing import Any, Final

from amqp.exceptions import NotFound
from kombu.transport.native_delayed_delivery import (
    CELERY_DELAYED_DELIVERY_EXCHANGE,
    declare_native_delayed_delivery_exchanges_and_queues,
    level_name,
)

from taskyard.queues import QueueType, inquire, product_of, quorum_priorities, version_of
from taskyard.settings import Settings

__all__ = ["bind_delay", "declare_delay", "delay_prefix", "delay_type", "has_waited", "waits_apart"]

# From this version on a quorum queue can pass on expired messages at least once; see
# https://www.rabbitmq.com/docs/quorum-queues#dead-lettering.
_AT_LEAST_ONCE: Final = (3, 10)
_FAMILIES: Final[Mapping[QueueType, str]] = {"classic": "", "quorum": ".quorum"}
# A quorum queue that was declared just before RabbitMQ is killed is lost, with its confirmed
# messages (seen with 3.10, 4.0 and 4.3), or comes back unable to answer; 0.5 s were too short.
_ON_DISK_S: Final = 1.5
_LEVEL: Final = re.compile(r"(^|_)celery_delayed_(\d+|delivery)$")
# For a quorum queue with two priorities.
_TWO: Final = 2
_HIGHEST_NORMAL: Final = 4


def delay_type(properties: Mapping[str, Any]) -> QueueType:
    """Return the queue type of the delay levels.

    It is quorum if the server can, whatever the type of the work queues is. A quorum queue
    passes on an expired message, and deletes it only when the next queue has confirmed it. A
    classic queue deletes it at once: if the server is killed within the next half second, the
    message is lost.
    """
    can = product_of(properties) == "RabbitMQ" and version_of(properties) >= _AT_LEAST_ONCE
    return "quorum" if can else "classic"


def waits_apart(properties: Mapping[str, Any], priority: int | None) -> bool:
    """Return whether a message of `priority` waits in delay levels for urgent messages only.

    A queue releases expired messages only from its head. With two priorities (RabbitMQ 4.0 to
    4.2) the head is an urgent message, even the newest one. An earlier message behind it would
    be late, by as much as the level's wait.
    """
    return quorum_priorities(properties) == _TWO and (priority or 0) > _HIGHEST_NORMAL


def has_waited(delivery: Mapping[str, Any]) -> bool:
    """Return whether a message came out of delay exchanges, Taskyard's or Celery's own.

    In the message, RabbitMQ names the last of the levels, not the exchange behind it.
    """
    return _LEVEL.search(str(delivery.get("exchange") or "")) is not None


def delay_prefix(settings: Settings, kind: QueueType, *, apart: bool = False) -> str:
    """Return the prefix of the names of the delay levels.

    Levels of quorum queues have other names than those of classic queues. So messages in
    existing classic levels still arrive, and RabbitMQ refuses no declaration.
    """
    return f"{settings.namespace}{_FAMILIES[kind]}{'.urgent' if apart else ''}"


def declare_delay(channel: Any, settings: Settings, kind: QueueType, prefix: str) -> None:
    """Declare the 28 delay levels (2^0 to 2^27 s) and bind every work queue behind them.

    New levels need a short time before messages may wait in them, whichever program declared
    them. An exchange that is declared after that time marks the levels as old enough.
    """
    client = channel.connection.client
    mark = f"{prefix}_celery_delayed_on_disk"
    old = kind == "classic" or _are_old(client, level_name(0, prefix), mark)
    declare_native_delayed_delivery_exchanges_and_queues(client, kind, prefix)
    for queue in settings.queues:
        bind_delay(channel, prefix, settings.broker_name(queue))
    if not old:
        sleep(_ON_DISK_S)
        channel.exchange_declare(mark, "fanout", durable=True, auto_delete=False)


def _are_old(client: Any, last_level: str, mark: str) -> bool:
    """Return whether messages may wait in the delay levels.

    They may if the level that is declared last exists, and the exchange `mark` too.
    """
    try:
        inquire(client, last_level)
        # On a separate channel, which the server closes if it does not exist.
        with client.channel() as channel:
            channel.exchange_declare(mark, "fanout", passive=True)
    except NotFound:
        return False
    return True


def bind_delay(channel: Any, prefix: str, name: str) -> None:
    """Bind the broker's queue `name` to the exchange behind the delay levels."""
    channel.queue_bind(
        queue=name,
        exchange=f"{prefix}_{CELERY_DELAYED_DELIVERY_EXCHANGE}",
        routing_key=f"#.{name}",
    )
