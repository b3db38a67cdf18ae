"""What lies at the legacy app's broker: its queues, what waits, and the letters."""

from __future__ import annotations

import base64
import json
from typing import Any, Protocol

from kombu.transport.native_delayed_delivery import MAX_NUMBER_OF_BITS_TO_USE, level_name

from support.rabbitmq import count_messages, take_letters
from support.yard import letters_key
from taskyard.broker import connection
from taskyard.broker.delay_exchanges import delay_prefix, delay_type
from taskyard.settings import Settings
from taskyard.store import connect
from taskyard.wire.letter_envelope import Letter

__all__ = ["Broker", "RabbitBroker", "RedisBroker"]


class Broker(Protocol):
    """What tests ask of either broker."""

    def queued(self, queue: str) -> int:
        """How many messages no worker has taken."""

    def waiting(self) -> int:
        """How many messages wait until they are due."""

    def letters(self) -> list[Letter]:
        """The letters that wait for the mirror."""

    def return_unacknowledged(self, queue: str) -> None:
        """Have a dead worker's messages delivered again, at once."""

    def push(self, queue: str, headers: dict[str, Any], body: bytes) -> None:
        """A JSON message as a client without any library would send it."""

    def close(self) -> None:
        """Let the connection go."""


class RedisBroker:
    """kombu's lists and hashes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = connect(settings.need_broker_url())

    def queued(self, queue: str) -> int:
        return int(self._client.llen(queue))

    def waiting(self) -> int:
        return int(self._client.zcard(f"{self._settings.namespace}:delayed"))

    def letters(self) -> list[Letter]:
        raws = self._client.lrange(letters_key(self._settings), 0, -1)
        return [Letter.parse(base64.b64decode(json.loads(raw)["body"])) for raw in raws]

    def return_unacknowledged(self, queue: str) -> None:
        """What the visibility timeout would do."""
        for tag, stored in self._client.hgetall("unacked").items():
            message, _, key = json.loads(stored)
            if key.startswith(queue):
                self._client.rpush(key, json.dumps(message))
                self._client.hdel("unacked", tag)
                self._client.zrem("unacked_index", tag)

    def push(self, queue: str, headers: dict[str, Any], body: bytes) -> None:
        message = {
            "body": base64.b64encode(body).decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": headers,
            "properties": {
                "body_encoding": "base64",
                "delivery_tag": str(headers.get("id")),
                "delivery_info": {"exchange": "", "routing_key": queue},
            },
        }
        self._client.lpush(queue, json.dumps(message))

    def close(self) -> None:
        self._client.close()


class RabbitBroker:
    """Queues that only counts and deliveries tell of."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._taken: list[Letter] = []

    def queued(self, queue: str) -> int:
        return count_messages(self._settings, [queue])

    def waiting(self) -> int:
        with connection(self._settings) as broker:
            kind = delay_type(broker.default_channel.connection.server_properties)
        prefix = delay_prefix(self._settings, kind)
        names = [level_name(level, prefix) for level in range(MAX_NUMBER_OF_BITS_TO_USE)]
        return count_messages(self._settings, names)

    def letters(self) -> list[Letter]:
        self._taken += take_letters(self._settings)
        return self._taken

    def return_unacknowledged(self, queue: str) -> None:
        """RabbitMQ sees the connection end, and does it itself."""

    def push(self, queue: str, headers: dict[str, Any], body: bytes) -> None:
        with connection(self._settings) as broker:
            channel = broker.default_channel
            message = channel.prepare_message(
                body, content_type="application/json", content_encoding="utf-8", headers=headers
            )
            channel.basic_publish_confirm(message, exchange="", routing_key=queue, mandatory=True)

    def close(self) -> None:
        """Each question had a connection of its own."""
