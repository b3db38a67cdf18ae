"""What is asked of this RabbitMQ, and why: decided from the properties in the server's greeting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

__all__ = ["QUORUM_PRIORITIES", "QueueType", "RabbitChoice", "choose", "product_of", "version_of"]

# From here on quorum queues serve urgent messages (over 4) before the others; see
# https://www.rabbitmq.com/docs/quorum-queues#priorities.
QUORUM_PRIORITIES: Final = (4, 0)

QueueType = Literal["classic", "quorum"]


@dataclass(frozen=True, slots=True)
class RabbitChoice:
    """The queues' type, how many priorities that leaves, the reason and what it costs.

    `cost` is empty where nothing that was asked for is missing. `drops_by_default`: whether a
    quorum queue without a delivery limit gets one from the server, which then drops messages.
    """

    server: str
    queue_type: QueueType
    priorities: int
    reason: str
    cost: str = ""
    drops_by_default: bool = False

    def __str__(self) -> str:
        """One line for a log and for `taskyard check`."""
        levels = {1: "no priorities", 2: "two priorities"}.get(self.priorities, "four priorities")
        tail = f"; {self.cost}" if self.cost else ""
        return f"{self.server}: {self.queue_type} queues with {levels}, {self.reason}{tail}"


def choose(properties: Mapping[str, Any], asked: str) -> RabbitChoice:
    """The choice for a server; `asked` is the setting `rabbitmq_queue_type`."""
    product, version = product_of(properties), version_of(properties)
    server = f"{product or 'a broker without a name'} {_text(properties.get('version'))}".strip()
    has_priorities = product == "RabbitMQ" and version >= QUORUM_PRIORITIES
    if asked == "quorum":
        return _asked_for_quorum(server, has_priorities=has_priorities)
    if asked == "classic":
        return RabbitChoice(server, "classic", 4, "as rabbitmq_queue_type asks")
    if has_priorities:
        reason = "since its quorum queues have priorities: the most urgent one, and the others"
        return RabbitChoice(server, "quorum", 2, reason, drops_by_default=True)
    since = ".".join(str(number) for number in QUORUM_PRIORITIES)
    reason = f"since quorum queues have none before RabbitMQ {since}"
    return RabbitChoice(server, "classic", 4, reason)


def _asked_for_quorum(server: str, *, has_priorities: bool) -> RabbitChoice:
    reason = "as rabbitmq_queue_type asks"
    if has_priorities:
        return RabbitChoice(server, "quorum", 2, reason, drops_by_default=True)
    since = ".".join(str(number) for number in QUORUM_PRIORITIES)
    cost = (
        "every job waits its turn, urgent ones too: quorum queues of this version have no "
        f"priorities. RabbitMQ {since} brings them; TASKYARD_RABBITMQ_QUEUE_TYPE=classic has them"
    )
    return RabbitChoice(server, "quorum", 1, reason, cost)


def product_of(properties: Mapping[str, Any]) -> str:
    """What the server calls itself, empty where it tells nothing."""
    return _text(properties.get("product"))


def version_of(properties: Mapping[str, Any]) -> tuple[int, ...]:
    """Major and minor number, empty where the server tells none."""
    parts = _text(properties.get("version")).split(".")[:2]
    return tuple(int(part) for part in parts if part.isdecimal())


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
