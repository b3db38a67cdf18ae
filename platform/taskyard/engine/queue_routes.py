"""Find the queue to which an exchange and a routing key lead, by an app's configuration."""

from __future__ import annotations

from typing import Any

__all__ = ["queue_named"]


def queue_named(app: Any, exchange: str, routing_key: str, here: str) -> str:
    """Return the queue to which an exchange and a routing key lead, by the app's configuration.

    If they lead to several, the result is `here` if that is one of them, else the first. If no
    queue is known, it is the key itself.
    """
    if not exchange:
        return routing_key
    names = [
        str(name)
        for name, queue in app.amqp.queues.items()
        if queue.exchange is not None
        and queue.exchange.name == exchange
        and _takes(queue, routing_key)
    ]
    if here in names or not names:
        return here if here in names else routing_key
    return names[0]


def _takes(queue: Any, key: str) -> bool:
    if queue.exchange.type == "fanout":
        return True
    if queue.exchange.type != "topic":
        return bool(queue.routing_key == key)
    return _matches(str(queue.routing_key or "").split("."), key.split("."))


def _matches(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_matches(pattern[1:], words[at:]) for at in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _matches(pattern[1:], words[1:])
