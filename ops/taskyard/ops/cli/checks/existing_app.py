"""`taskyard check module:app`: what `install` changes, task by task."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from taskyard.install import AppBroker, Plan, TaskPlan, plan, strays_to
from taskyard.ops.cli.checks.named_app import load_app
from taskyard.ops.cli.console import note, print_json, put, table
from taskyard.settings import load

__all__ = ["report"]

_REMEDY: Final = (
    "Taskyard's transport loses none of it and returns within seconds: it reads one Redis at "
    "redis://, rediss:// or sentinel:// unless install says transport=False"
)


def report(name: str, mode: str | None, *, json: bool) -> None:
    """Print the plan of the app called `name`; raises `InvalidSettings`."""
    app = load_app(name)
    found = plan(app, mode)
    _note_other_broker(name, app)
    if json:
        print_json(_document(found))
        return
    if not found.tasks:
        note(
            f"{name} has no task but Celery's own. Expected tasks in its module, or in those that "
            "`include`, `imports` or `autodiscover_tasks` names: a worker of this app would run "
            "none either"
        )
        return
    columns = ("task", "mode", "acknowledged", "serializer", "results")
    put(table(columns, [_row(task) for task in found.tasks]))
    for task in found.tasks:
        for warning in task.warnings:
            note(f"{task.name}: {task.mode}, not more: {warning}")
    if found.unprotected:
        note(
            f"{name}: kombu's own transport reads its queues ({found.transport.why}), so not all "
            f"is protected: {'; '.join(found.unprotected)}. {_REMEDY}"
        )


def _document(found: Plan) -> dict[str, Any]:
    choice = found.transport
    return {
        "tasks": [asdict(task) for task in found.tasks],
        "transport": {"own": choice.own is not None, "why": choice.why},
        "unprotected": found.unprotected,
    }


def _note_other_broker(name: str, app: Any) -> None:
    """The settings that mirror and relay have here may lead past the app's letters."""
    broker = AppBroker(app)
    other = strays_to(broker, load().settings)
    if other is not None:
        note(
            f"{name} publishes to {other}, and TASKYARD_BROKER_URL names another broker: mirror "
            "and relay would wait there, and no letter of this app would reach an operator. Set it "
            "to the app's broker for them"
        )
    if broker.reads_elsewhere:
        note(
            f"{name} reads from another broker than it publishes to, as far as the names in "
            "broker_read_url and broker_write_url tell. Retries, waiting messages and letters go "
            "where it publishes: set TASKYARD_BROKER_URL of mirror and relay to that one"
        )


def _row(task: TaskPlan) -> tuple[str, ...]:
    same = task.acks_before == task.acks_with
    acks = task.acks_before if same else f"{task.acks_before} → {task.acks_with}"
    return (task.name, str(task.mode), acks, task.serializer, task.backend)
