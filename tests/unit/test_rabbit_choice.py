"""Which queues are asked of which RabbitMQ, and why."""

from __future__ import annotations

from typing import Any

import pytest

from taskyard.broker import describe
from taskyard.broker.delay_exchanges import waits_apart
from taskyard.broker.rabbit_queue_losses import losses, policy_command
from taskyard.ops.cli.checks.finding import Level
from taskyard.ops.cli.checks.rabbitmq_server import judge_choice
from taskyard.queues import (
    Declared,
    QueueOptions,
    RabbitQueue,
    choose,
    rabbit_priority,
    rabbit_queues,
)
from taskyard.queues.rabbit_queue import BROKER_DELIVERY_LIMIT
from taskyard.settings import QueueSettings, Settings


def server(version: str, product: str = "RabbitMQ") -> dict[str, Any]:
    return {"product": product, "version": version}


def settings(asked: str = "auto") -> Settings:
    return Settings(broker_url="amqp://h//", rabbitmq_queue_type=asked)


def exec_queue(asked: str = "auto") -> RabbitQueue:
    return next(queue for queue in rabbit_queues(settings(asked)) if queue.name == "exec")


@pytest.mark.parametrize(
    ("version", "asked", "queue_type", "priorities"),
    [
        ("3.10.8", "auto", "classic", 4),
        ("3.13.7", "auto", "classic", 4),
        ("4.0.1", "auto", "classic", 4),
        ("4.2.9", "auto", "classic", 4),
        ("4.3.0", "auto", "quorum", 4),
        ("5.0.0", "auto", "quorum", 4),
        ("4.1.0-rc.1", "auto", "classic", 4),
        ("", "auto", "classic", 4),
        ("3.10.8", "classic", "classic", 4),
        ("4.1.2", "classic", "classic", 4),
        ("3.10.8", "quorum", "quorum", 1),
        ("4.1.2", "quorum", "quorum", 2),
        ("4.3.6", "classic", "classic", 4),
        ("4.3.6", "quorum", "quorum", 4),
    ],
)
def test_the_servers_version_decides_the_type_of_queues_unless_one_is_asked_for(
    version: str, asked: str, queue_type: str, priorities: int
) -> None:
    choice = choose(server(version), asked)

    assert (choice.queue_type, choice.priorities) == (queue_type, priorities)


def test_another_broker_of_the_same_protocol_gets_classic_queues() -> None:
    assert choose(server("4.2", product="LavinMQ"), "auto").queue_type == "classic"


@pytest.mark.parametrize(
    ("version", "asked", "reported"),
    [
        (
            "3.10.8",
            "auto",
            (
                "RabbitMQ 3.10.8: classic queues with four priorities, because quorum queues have "
                "them only from RabbitMQ 4.3 on"
            ),
        ),
        (
            "4.1.2",
            "quorum",
            (
                "RabbitMQ 4.1.2: quorum queues with two priorities, as rabbitmq_queue_type says: "
                "two jobs of the most urgent priority are served for each job of another priority"
            ),
        ),
        (
            "4.3.6",
            "auto",
            (
                "RabbitMQ 4.3.6: quorum queues with four priorities, because its quorum queues "
                "have them"
            ),
        ),
        (
            "3.12.0",
            "quorum",
            (
                "RabbitMQ 3.12.0: quorum queues with no priorities, as rabbitmq_queue_type says; "
                "urgent jobs are not served before others"
            ),
        ),
    ],
)
def test_the_choice_says_why(version: str, asked: str, reported: str) -> None:
    assert str(choose(server(version), asked)).startswith(reported)


@pytest.mark.parametrize(
    ("version", "priority", "apart"),
    [
        ("4.0.5", 5, True),
        ("4.2.1", 255, True),
        ("4.0.5", 4, False),
        ("4.0.5", None, False),
        ("3.10.8", 5, False),
        ("4.3.6", 5, False),
    ],
)
def test_urgent_jobs_wait_apart_where_they_would_hold_up_what_waits_with_them(
    version: str, priority: int | None, apart: bool
) -> None:
    assert waits_apart(server(version), priority) is apart


def test_the_description_names_the_exchanges_of_what_waits() -> None:
    reported = describe(settings(), server("4.0.1"))

    assert "our own exchanges taskyard.quorum_celery_delayed_*, quorum" in reported
    assert "taskyard.quorum_celery_delayed_*, quorum" in describe(settings(), server("3.10.8"))
    assert "taskyard_celery_delayed_*, classic" in describe(settings(), server("3.9.29"))


@pytest.mark.parametrize(
    ("version", "asked", "level"),
    [("3.10.8", "quorum", "warning"), ("3.10.8", "auto", "ok"), ("4.0.0", "quorum", "ok")],
)
def test_check_warns_where_what_is_asked_for_costs_something(
    version: str, asked: str, level: str
) -> None:
    assert judge_choice(settings(asked), server(version)).level is Level(level)


# -- what is declared ------------------------------------------------------------------------------


def test_a_classic_work_queue_has_priorities_and_the_dead_letter_exchange() -> None:
    assert exec_queue().options.arguments(choose(server("3.10.8"), "auto")) == {
        "x-queue-type": "classic",
        "x-max-priority": 4,
        "x-dead-letter-exchange": "taskyard.dead-letter",
        "x-dead-letter-routing-key": "exec.broker.rejected",
    }


def test_a_quorum_work_queue_dead_letters_at_least_once_and_ends_what_goes_round() -> None:
    assert exec_queue().options.arguments(choose(server("4.3.6"), "auto")) == {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "taskyard.dead-letter",
        "x-dead-letter-routing-key": "exec.broker.rejected",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-delivery-limit": BROKER_DELIVERY_LIMIT,
    }


def test_a_quorum_queue_without_a_dead_letter_exchange_never_drops_a_message() -> None:
    options = QueueOptions("quorum")

    assert options.arguments(choose(server("4.1.2"), "quorum"))["x-delivery-limit"] == -1
    assert "x-delivery-limit" not in options.arguments(choose(server("3.10.8"), "quorum"))


def test_the_most_urgent_priority_is_urgent_for_both_types_of_queues() -> None:
    five = QueueSettings(priorities=5)

    assert [rabbit_priority(five, level) for level in (5, 4, 3, 2, 1)] == [5, 3, 2, 1, 1]
    assert [rabbit_priority(QueueSettings(priorities=2), level) for level in (2, 1)] == [5, 3]


# -- queues that exist -----------------------------------------------------------------------------


def as_found(arguments: dict[str, Any], **flags: bool) -> Declared:
    return Declared("exec", arguments, {"durable": True, **flags})


OURS = {
    "x-max-priority": 4,
    "x-dead-letter-exchange": "taskyard.dead-letter",
    "x-dead-letter-routing-key": "exec.broker.rejected",
}


@pytest.mark.parametrize(
    ("found", "lost"),
    [
        (as_found(OURS), []),
        (as_found({**OURS, "x-max-priority": 10}), []),
        (as_found({**OURS, "x-queue-mode": "lazy"}), []),
        (as_found({**OURS, "x-max-priority": 2}), ["it has only 2 priorities, expected 4"]),
        (as_found({**OURS, "x-message-ttl": 5}), ["its x-message-ttl is 5"]),
        (
            as_found({**OURS, "x-dead-letter-exchange": "own"}),
            ["do not become dead letters, but go to 'own'"],
        ),
        (as_found(OURS, durable=False), ["it is not durable"]),
        (as_found(OURS, auto_delete=True), ["it is deleted, with its messages"]),
        (as_found({}), ["it has no x-dead-letter-exchange", "it has no x-max-priority"]),
        (
            as_found({"x-queue-type": "quorum"}),
            ["it has no x-dead-letter-exchange", "a quorum queue, which has no priorities"],
        ),
    ],
)
def test_what_is_lost_by_a_difference(found: Declared, lost: list[str]) -> None:
    reported = losses(exec_queue(), found, server("3.10.8"))

    assert len(reported) == len(lost)
    assert all(part in text for part, text in zip(lost, reported, strict=True))


@pytest.mark.parametrize(
    ("version", "lost"),
    [
        ("3.10.8", ["it is a quorum queue, which has no priorities"]),
        ("4.1.2", ["it is a quorum queue, which has two priorities"]),
        ("4.3.6", []),
    ],
)
def test_a_quorum_queue_in_a_classic_ones_place_has_the_servers_priorities(
    version: str, lost: list[str]
) -> None:
    assert losses(exec_queue("classic"), as_found(QUORUM), server(version)) == lost


def test_a_classic_queue_of_before_an_upgrade_lacks_only_its_replicas() -> None:
    assert losses(exec_queue(), as_found(OURS), server("4.3.6")) == [
        "it is a classic queue, which exists on one node only"
    ]


QUORUM = {
    "x-queue-type": "quorum",
    "x-dead-letter-exchange": "taskyard.dead-letter",
    "x-dead-letter-routing-key": "exec.broker.rejected",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
    "x-delivery-limit": BROKER_DELIVERY_LIMIT,
}


@pytest.mark.parametrize(
    ("missing", "lost"),
    [
        ("x-delivery-limit", "its x-delivery-limit is 20 by default, expected"),
        ("x-dead-letter-strategy", "its x-dead-letter-strategy is at-most-once"),
        ("x-overflow", "its x-overflow is drop-head"),
    ],
)
def test_a_quorum_queue_that_lacks_one_argument_loses_by_it_and_a_policy_adds_it(
    missing: str, lost: str
) -> None:
    found = as_found({name: value for name, value in QUORUM.items() if name != missing})

    (reported,) = losses(exec_queue("quorum"), found, server("4.1.2"))
    command = policy_command(exec_queue("quorum"), found, server("4.1.2"), "/")

    assert lost in reported
    assert f'"{missing.removeprefix("x-")}": ' in command
    assert "dead-letter-exchange" not in command


@pytest.mark.parametrize(("limit", "lost"), [(20, True), (1000, False), (5000, False), (-1, False)])
def test_a_delivery_limit_loses_only_where_it_ends_a_message_sooner(limit: int, lost: bool) -> None:
    found = as_found({**QUORUM, "x-delivery-limit": limit})

    assert bool(losses(exec_queue("quorum"), found, server("4.1.2"))) is lost


def test_the_policy_fits_the_queue_that_is_there() -> None:
    def command(arguments: dict[str, Any]) -> str:
        return policy_command(exec_queue(), as_found(arguments), server("3.10.8"), "/")

    assert "at-least-once" not in command({})
    assert '"dead-letter-strategy": "at-least-once"' in command({"x-queue-type": "quorum"})
    assert command({"x-dead-letter-exchange": "own"}) == ""
    assert command(OURS) == ""
