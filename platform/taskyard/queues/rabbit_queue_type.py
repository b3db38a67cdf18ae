"""Choose the queue type and the number of priorities that a RabbitMQ server supports.

The server's greeting names its product and version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

__all__ = [
    "QueueType",
    "RabbitChoice",
    "choose",
    "product_of",
    "quorum_priorities",
    "version_of",
]

# From this version on quorum queues serve two urgent messages (over 4) for each other one, and from
# 4.3 on the most urgent first, as classic ones do; see
# https://www.rabbitmq.com/docs/quorum-queues#priorities.
_QUORUM_TWO: Final = (4, 0)
_QUORUM_ALL: Final = (4, 3)
_FOUR: Final = 4
_MEANING: Final = {
    1: "",
    2: (
        ": two jobs of the most urgent priority are served for each job of another priority. "
        "Jobs of all other priorities are served in the order in which they came. RabbitMQ "
        "4.3 and classic queues distinguish four"
    ),
    _FOUR: "",
}

QueueType = Literal["classic", "quorum"]


@dataclass(frozen=True, slots=True)
class RabbitChoice:
    """The chosen queue type and number of priorities, with the reason and the disadvantages.

    `cost` names what was configured and is not possible; it is empty if everything is.
    `drops_by_default` says whether the server gives a quorum queue without a delivery limit one
    of its own, after which it drops messages.
    """

    server: str
    queue_type: QueueType
    priorities: int
    reason: str
    cost: str = ""
    drops_by_default: bool = False

    def __str__(self) -> str:
        """Return the choice as one line, for a log and for `taskyard check`."""
        levels = {1: "no priorities", 2: "two priorities"}.get(self.priorities, "four priorities")
        tail = f"; {self.cost}" if self.cost else ""
        return f"{self.server}: {self.queue_type} queues with {levels}, {self.reason}{tail}"


def choose(properties: Mapping[str, Any], asked: str) -> RabbitChoice:
    """Return the choice for a server; `asked` is the setting `rabbitmq_queue_type`."""
    product = product_of(properties)
    server = f"{product or 'a broker without a name'} {_text(properties.get('version'))}".strip()
    levels = quorum_priorities(properties)
    if asked == "quorum":
        return _asked_for_quorum(server, levels)
    if asked == "classic":
        reason = "as rabbitmq_queue_type says"
        return RabbitChoice(server, "classic", _FOUR, reason, drops_by_default=levels > 1)
    if levels == _FOUR:
        reason = "because its quorum queues have them"
        return RabbitChoice(server, "quorum", levels, reason, drops_by_default=True)
    reason = f"because quorum queues have them only from RabbitMQ {_dotted(_QUORUM_ALL)} on"
    return RabbitChoice(server, "classic", _FOUR, reason, drops_by_default=levels > 1)


def _asked_for_quorum(server: str, levels: int) -> RabbitChoice:
    reason = f"as rabbitmq_queue_type says{_MEANING[levels]}"
    if levels > 1:
        return RabbitChoice(server, "quorum", levels, reason, drops_by_default=True)
    cost = (
        "urgent jobs are not served before others: quorum queues of this version have no "
        f"priorities. RabbitMQ {_dotted(_QUORUM_TWO)} has two priorities, "
        f"{_dotted(_QUORUM_ALL)} has all four. To have priorities now, set "
        "TASKYARD_RABBITMQ_QUEUE_TYPE=classic"
    )
    return RabbitChoice(server, "quorum", 1, reason, cost)


def quorum_priorities(properties: Mapping[str, Any]) -> int:
    """Return how many of our four priorities a quorum queue of this server distinguishes."""
    if product_of(properties) != "RabbitMQ" or version_of(properties) < _QUORUM_TWO:
        return 1
    return 2 if version_of(properties) < _QUORUM_ALL else _FOUR


def product_of(properties: Mapping[str, Any]) -> str:
    """Return the server's product name, empty if it gives none."""
    return _text(properties.get("product"))


def version_of(properties: Mapping[str, Any]) -> tuple[int, ...]:
    """Return major and minor version number, empty if the server gives none."""
    parts = _text(properties.get("version")).split(".")[:2]
    return tuple(int(part) for part in parts if part.isdecimal())


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(number) for number in version)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
