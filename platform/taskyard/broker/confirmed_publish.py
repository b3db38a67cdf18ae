"""Publish one message to RabbitMQ with a confirmation, and fail if no queue took it.

A broker also confirms a message that no queue takes; only `mandatory` makes the broker return it.
"""

from __future__ import annotations

import os
from typing import Any

from kombu import Connection, Producer
from kombu.exceptions import OperationalError

from taskyard.errors import Unroutable

__all__ = ["abandon", "disown", "late", "publish_confirmed", "unroutable"]


def publish_confirmed(producer: Producer, body: bytes, timeout_s: float, **options: Any) -> None:
    """Publish a message and wait at most `timeout_s` for each answer of RabbitMQ.

    Raises `Unroutable` if no queue took the message. Raises kombu's `OperationalError` if no
    answer came: then the message may still arrive, and the caller must abandon the connection.
    """
    returned: list[Any] = []
    blocked: list[Any] = []

    def note(*details: Any) -> None:
        returned.append(details)

    producer.channel.connection.on_blocked = blocked.append
    events = producer.channel.events["basic_return"]
    events.add(note)
    try:
        producer.publish(
            body,
            mandatory=True,
            delivery_mode=2,
            serializer=None,
            timeout=timeout_s,
            confirm_timeout=timeout_s,
            **options,
        )
    except TimeoutError as error:
        raise OperationalError(late(timeout_s, blocked=bool(blocked))) from error
    finally:
        events.discard(note)
    if returned:
        raise unroutable(options["exchange"], options["routing_key"])


def abandon(connection: Connection) -> None:
    """Close a connection without a message to the server.

    A server that blocks publishers would never answer.
    """
    connection.collect()


def disown(connection: Connection) -> None:
    """Close this process' copy of a connection that the parent process still uses.

    An ordinary close would shut down the socket, and so end the connection for the parent too.
    """
    if not connection.connected:
        return
    transport = connection.connection.transport
    sock, transport.sock = transport.sock, None
    os.close(sock.detach())


def unroutable(exchange: str, key: str) -> Unroutable:
    """Return the error for a message that the broker returned because no queue takes it."""
    taker = "but its queue is" if exchange == "" else "but a queue's binding is"
    return Unroutable(
        f"RabbitMQ returned a message published to exchange {exchange!r} with key {key!r}: "
        f"expected a queue that takes it, {taker} missing. Every new connection declares "
        f"Taskyard's queues, so start a worker or try again; declare and bind a queue of your own "
        f"yourself"
    )


def late(timeout_s: float, *, blocked: bool) -> str:
    """Return the error for a confirmation that did not come, with the probable cause."""
    why = (
        "RabbitMQ blocks publishers, because memory or disk space is low"
        if blocked
        else "RabbitMQ may be overloaded or unreachable"
    )
    return (
        f"RabbitMQ did not confirm a message within {timeout_s:g} s: {why}; see rabbitmqctl status"
    )
