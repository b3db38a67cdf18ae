"""`taskyard check module:app`: what `install` changes, task by task."""

from __future__ import annotations

from dataclasses import asdict

from taskyard.install import TaskPlan, plan
from taskyard.ops.cli.checks.named_app import load_app
from taskyard.ops.cli.console import note, print_json, put, table

__all__ = ["report"]


def report(name: str, mode: str | None, *, json: bool) -> None:
    """Print the plan of the app called `name`; raises `InvalidSettings`."""
    found = plan(load_app(name), mode)
    if json:
        print_json([asdict(task) for task in found])
        return
    columns = ("task", "mode", "acknowledged", "serializer", "results")
    put(table(columns, [_row(task) for task in found]))
    for task in found:
        for warning in task.warnings:
            note(f"{task.name}: {task.mode}, not more: {warning}")


def _row(task: TaskPlan) -> tuple[str, ...]:
    same = task.acks_before == task.acks_with
    acks = task.acks_before if same else f"{task.acks_before} → {task.acks_with}"
    return (task.name, str(task.mode), acks, task.serializer, task.backend)
