"""Inheritance only where Celery or kombu make us, and no method skips its parent."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from taskyard.transport import Channel, QoS, SentinelChannel, SentinelTransport, Transport

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("kind", "levels"),
    [(Channel, 2), (SentinelChannel, 2), (Transport, 2), (SentinelTransport, 2), (QoS, 1)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_transport_has_at_most_two_levels_over_kombus(kind: type, levels: int) -> None:
    ours = [base for base in kind.__mro__ if base.__module__.startswith("taskyard.")]
    assert len(ours) == levels


def test_no_method_skips_its_parent() -> None:
    skipping = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for root in ("platform", "workers", "tasks", "ops")
        for file in (ROOT / root).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "super"
        and node.args
    ]
    assert skipping == []
