"""Describe what an existing RabbitMQ queue cannot do because its arguments differ.

The module also builds the policy that corrects a part of the differences.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from taskyard.queues import Declared, RabbitChoice, RabbitQueue, choose, quorum_priorities

__all__ = ["losses", "policy_command"]

# What a policy can set, by the type of the existing queue; x-max-priority is not among it.
_BY_POLICY: Final = {
    "classic": ("dead-letter-exchange", "dead-letter-routing-key"),
    "quorum": (
        "dead-letter-exchange",
        "dead-letter-routing-key",
        "dead-letter-strategy",
        "overflow",
        "delivery-limit",
    ),
}
# RabbitMQ's own default since 4.0, if neither the queue nor a policy sets one.
_SERVERS_LIMIT: Final = 20
# What RabbitMQ's own dead-lettering needs to be safe, and its value if it was not set.
_AT_LEAST_ONCE: Final = {"x-dead-letter-strategy": "at-most-once", "x-overflow": "drop-head"}
_DROPS: Final = ("x-expires", "x-message-ttl", "x-max-length", "x-max-length-bytes")


def losses(queue: RabbitQueue, declared: Declared, properties: Mapping[str, Any]) -> list[str]:
    """Return in words what is lost by each difference; the list is empty if nothing is lost."""
    choice = choose(properties, queue.options.asked)
    differences = declared.differences(queue.options.arguments(choice))
    if "x-queue-type" in differences:
        # Arguments that only the other type has follow from the type.
        shared = queue.options.arguments(_as_found(choice, declared))
        differences = {**declared.differences(shared), "x-queue-type": differences["x-queue-type"]}
    priorities = quorum_priorities(properties)
    texts = [_loss(name, *pair, priorities) for name, pair in differences.items()]
    texts += _quorum_losses(differences, drops_by_default=choice.drops_by_default)
    return [text for text in texts if text]


def _quorum_losses(
    differences: Mapping[str, tuple[Any, Any]], *, drops_by_default: bool
) -> Iterator[str]:
    """Yield how a quorum queue drops messages early, or may lose messages that it drops."""
    wanted, found = differences.get("x-delivery-limit", (None, None))
    if wanted is not None and _drops_sooner(found, wanted, drops_by_default=drops_by_default):
        limit = f"{_SERVERS_LIMIT} by default" if found is None else found
        expected = "no limit (-1)" if wanted == -1 else wanted
        yield (
            f"its x-delivery-limit is {limit}, expected {expected}: RabbitMQ drops a message "
            "after that many deliveries"
        )
    if "x-dead-letter-exchange" in differences:
        return  # which is reported already, and without it there are no letters to lose
    for name, default in _AT_LEAST_ONCE.items():
        wanted, found = differences.get(name, (None, None))
        if wanted is not None:
            yield (
                f"its {name} is {found or default}, expected {wanted}: unless a policy "
                "corrects this, messages that RabbitMQ itself drops may be lost without a "
                "dead letter"
            )


def _drops_sooner(found: int | None, wanted: int, *, drops_by_default: bool) -> bool:
    if found is None:
        return drops_by_default
    return found != -1 and (wanted == -1 or found < wanted)


def policy_command(
    queue: RabbitQueue, declared: Declared, properties: Mapping[str, Any], vhost: str
) -> str:
    """Return the command that sets what a policy can set for an existing queue.

    The text is empty if a policy changes nothing.
    """
    choice = _as_found(choose(properties, queue.options.asked), declared)
    wanted = queue.options.arguments(choice)
    missing = {
        name: wanted[f"x-{name}"]
        for name in _BY_POLICY[choice.queue_type]
        if f"x-{name}" in wanted and f"x-{name}" not in declared.arguments
    }
    if "x-dead-letter-exchange" in wanted and _leads_elsewhere(wanted, declared):
        # An argument of the queue overrides every policy; with another exchange, letters are not
        # ours.
        return ""
    if not missing:
        return ""
    words = ["--vhost", vhost, "--apply-to", "queues", f"taskyard-{queue.name}"]
    pattern, definition = f"^{re.escape(queue.name)}$", json.dumps(missing)
    return shlex.join(["rabbitmqctl", "set_policy", *words, pattern, definition])


def _leads_elsewhere(wanted: Mapping[str, Any], declared: Declared) -> bool:
    found = declared.arguments.get("x-dead-letter-exchange")
    return found is not None and found != wanted["x-dead-letter-exchange"]


def _as_found(choice: RabbitChoice, declared: Declared) -> RabbitChoice:
    quorum = declared.arguments.get("x-queue-type") == "quorum"
    return replace(choice, queue_type="quorum" if quorum else "classic")


def _loss(name: str, wanted: Any, found: Any, quorum_levels: int) -> str:  # noqa: PLR0911 - one loss a line
    match name:
        case "x-max-priority" if found is None:
            return "it has no x-max-priority: RabbitMQ does not serve urgent jobs before others"
        case "x-max-priority" if wanted is not None and found < wanted:
            return f"it has only {found} priorities, expected {wanted}"
        case "x-dead-letter-exchange" if found is None:
            return (
                "it has no x-dead-letter-exchange: unless a policy gives it one, messages "
                "that RabbitMQ itself drops from it (expired, too many) are lost without a "
                "dead letter"
            )
        case "x-dead-letter-exchange":
            return (
                "messages that RabbitMQ drops from it do not become dead letters, but go "
                f"to {found!r}"
            )
        case "x-queue-type" if found == "quorum":
            levels = {1: "no priorities", 2: "two priorities"}.get(quorum_levels)
            return "" if levels is None else f"it is a quorum queue, which has {levels}"
        case "x-queue-type":
            return "it is a classic queue, which exists on one node only"
        case "durable":
            return "it is not durable: a restart of RabbitMQ loses its messages"
        case "auto_delete":
            return "it is deleted, with its messages, when its last consumer disconnects"
        case limit if limit in _DROPS and found is not None:
            return f"its {limit} is {found}: RabbitMQ drops messages beyond that"
    return ""
