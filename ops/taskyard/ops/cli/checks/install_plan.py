"""`taskyard check module:app`: what `install` changes, task by task."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from taskyard.install import AppBroker, Plan, TaskPlan, plan, strays_to
from taskyard.ops.cli.console import note, print_json, put, table
from taskyard.ops.cli.load_app import load_app
from taskyard.settings import load

__all__ = ["report"]

_REMEDY: Final = (
    "With Taskyard's transport nothing is lost, and messages come back within seconds. It needs a "
    "single Redis at redis://, rediss:// or sentinel://, and an install without transport=False"
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
            f"{name} has no task but Celery's own. Expected tasks in its module, or in modules "
            f"named by `include`, `imports` or `autodiscover_tasks`. A worker of this app would "
            f"not find any either"
        )
        return
    columns = ("task", "mode", "acknowledged", "serializer", "results")
    put(table(columns, [_row(task) for task in found.tasks]))
    for task in found.tasks:
        for warning in task.warnings:
            note(f"{task.name}: only {task.mode}: {warning}")
    if found.unprotected:
        note(
            f"{name}: kombu's own transport reads its queues ({found.transport.why}), so some "
            f"things are not protected: {'; '.join(found.unprotected)}. {_REMEDY}"
        )


def _document(found: Plan) -> dict[str, Any]:
    choice = found.transport
    return {
        "tasks": [asdict(task) for task in found.tasks],
        "transport": {"own": choice.own is not None, "why": choice.why},
        "unprotected": found.unprotected,
    }


def _note_other_broker(name: str, app: Any) -> None:
    """Warn if the app's dead letters go to another broker than mirror and relay here would read."""
    broker = AppBroker(app)
    other = strays_to(broker, load().settings)
    if other is not None:
        note(
            f"{name} publishes to {other}, and TASKYARD_BROKER_URL names another broker: mirror "
            f"and relay would read that one, and operators would see no letter of this app. Set "
            f"the variable to the app's broker for mirror and relay"
        )
    if broker.reads_elsewhere:
        note(
            f"broker_read_url and broker_write_url of {name} name different brokers. Retries, "
            f"waiting messages and letters go "
            "where it publishes: set TASKYARD_BROKER_URL of mirror and relay to that one"
        )


def _row(task: TaskPlan) -> tuple[str, ...]:
    same = task.acks_before == task.acks_with
    acks = task.acks_before if same else f"{task.acks_before} → {task.acks_with}"
    return (task.name, str(task.mode), acks, task.serializer, task.backend)
