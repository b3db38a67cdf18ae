"""The relay and its watcher live and end together."""

from __future__ import annotations

import threading

import pytest

from taskyard.ops.cli.relay import run_beside

PATIENCE_S = 30.0


def until_stopped(stop: threading.Event) -> None:
    assert stop.wait(PATIENCE_S)


def test_a_watcher_that_dies_ends_the_relay_with_the_cause() -> None:
    def dies(_: threading.Event) -> None:
        raise ValueError("an unreadable record")

    with pytest.raises(ValueError, match="an unreadable record"):
        run_beside(until_stopped, {"watcher": dies}, threading.Event())


def test_a_relay_that_dies_ends_the_watcher_with_the_cause() -> None:
    ended = threading.Event()

    def watcher(stop: threading.Event) -> None:
        until_stopped(stop)
        ended.set()

    def dies(_: threading.Event) -> None:
        raise ValueError("no such intent")

    with pytest.raises(ValueError, match="no such intent"):
        run_beside(dies, {"watcher": watcher}, threading.Event())
    assert ended.is_set()


def test_one_of_two_watchers_that_dies_ends_the_other_and_the_relay() -> None:
    def dies(_: threading.Event) -> None:
        raise ValueError("an unreadable seal")

    with pytest.raises(ValueError, match="an unreadable seal"):
        run_beside(until_stopped, {"one": until_stopped, "two": dies}, threading.Event())


def test_both_end_when_they_are_told_to() -> None:
    stop = threading.Event()
    ended: list[str] = []

    def watcher(stop: threading.Event) -> None:
        until_stopped(stop)
        ended.append("watcher")

    def relay(stop: threading.Event) -> None:
        stop.set()
        ended.append("relay")

    run_beside(relay, {"watcher": watcher}, stop)
    assert sorted(ended) == ["relay", "watcher"]
