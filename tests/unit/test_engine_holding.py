"""What a worker holds back, and what becomes of it where the worker is told to end."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from taskyard.engine.celery_messages import CeleryMessages


class ConsumerStandIn:
    """Celery's consumer as far as messages are held in it; its timer runs when a test says so."""

    def __init__(self) -> None:
        self.prefetch = 4
        self.due: list[Callable[[], object]] = []
        self.qos = SimpleNamespace(
            increment_eventually=lambda: self._prefetch(1),
            decrement_eventually=lambda: self._prefetch(-1),
        )
        self.timer = SimpleNamespace(
            call_after=lambda _wait_s, fun, args: self.due.append(lambda: fun(*args))
        )

    def call_soon(self, fun: Callable[..., object], *args: Any) -> None:
        fun(*args)

    def _prefetch(self, more: int) -> None:
        self.prefetch += more


@pytest.fixture
def consumer() -> ConsumerStandIn:
    return ConsumerStandIn()


def message(*, is_open: bool = True) -> Any:
    return SimpleNamespace(channel=SimpleNamespace(is_open=is_open), delivery_tag="1")


def test_what_is_held_goes_back_once_and_its_place_with_it(consumer: ConsumerStandIn) -> None:
    holding, back = CeleryMessages(consumer), list[str]()
    holding.hold(message(), lambda: back.append("after its wait"), 9)
    assert consumer.prefetch == 5
    holding.end_holding()
    for act in consumer.due:
        act()
    assert (back, consumer.prefetch) == (["after its wait"], 4)


def test_a_worker_that_ends_does_what_holds_for_a_drain(consumer: ConsumerStandIn) -> None:
    holding, back = CeleryMessages(consumer), list[str]()
    on_drain = lambda: back.append("drained")  # noqa: E731 - one act
    holding.hold(message(), lambda: back.append("waited"), 9, on_drain=on_drain)
    holding.end_holding()
    holding.hold(message(), lambda: back.append("waited"), 9, on_drain=on_drain)
    assert (back, len(consumer.due)) == (["drained", "drained"], 1)


def test_what_a_lost_connection_took_is_no_longer_held(consumer: ConsumerStandIn) -> None:
    holding, back = CeleryMessages(consumer), list[str]()
    for _ in range(3):
        holding.hold(message(is_open=False), lambda: back.append("twice"), 9, most=1)
    for act in consumer.due:
        act()
    before = consumer.prefetch
    holding.hold(message(), lambda: back.append("once"), 9, most=1)
    assert (back, consumer.prefetch) == ([], before + 1), "its place is free again"
