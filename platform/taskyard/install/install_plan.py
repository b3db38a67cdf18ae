"""Describe what `install` changes, for `taskyard check module:app`: transport and tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from taskyard.install.app_broker import AppBroker
from taskyard.install.attribute_names import ACKS_BEFORE
from taskyard.install.effective_mode import TaskMode, judge_task
from taskyard.install.fanout import fanout_route
from taskyard.install.installed_context import InstalledContext
from taskyard.install.modes import Mode, Modes
from taskyard.install.publication_broker import why_unsupported
from taskyard.install.transport_choice import TransportChoice, choose_transport
from taskyard.settings import load

__all__ = ["Plan", "TaskPlan", "plan"]


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """The plan for one task: its acknowledgement before and with Taskyard, and warnings."""

    name: str
    mode: Mode
    acks_before: str
    acks_with: str
    serializer: str
    backend: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the workers of an app do with Taskyard installed."""

    tasks: tuple[TaskPlan, ...]
    transport: TransportChoice

    @property
    def unprotected(self) -> tuple[str, ...]:
        """Return what can still happen to protected tasks, with the transport that reads them."""
        protects = any(task.mode is Mode.PROTECT for task in self.tasks)
        return self.transport.unprotected if protects else ()


def plan(app: Any, mode: str | None = None) -> Plan:
    """Return the plan for the transport and for every task of the app, by name.

    Celery's own tasks are left out. `mode` is what `install` would be called with; without it
    the app's own `install` counts, or "protect". Raises `InvalidSettings`.
    """
    yard = getattr(app, "taskyard", None)
    modes = yard.modes if mode is None and isinstance(yard, InstalledContext) else None
    modes = modes or Modes.read(mode or Mode.PROTECT, None)
    settings = yard.given if isinstance(yard, InstalledContext) else load().settings
    broker = AppBroker(app)
    against = why_unsupported(broker, settings)
    names = sorted(name for name in app.tasks if not name.startswith("celery."))
    tasks = tuple(_plan(app.tasks[name], modes, against) for name in names)
    if mode is None and isinstance(yard, InstalledContext):
        return Plan(tasks, yard.transport)
    return Plan(tasks, choose_transport(broker, modes, None))


def _plan(task: Any, modes: Modes, against_broker: str | None) -> TaskPlan:
    task_mode = _on_its_route(task, judge_task(task, modes, against_broker))
    before = getattr(task, ACKS_BEFORE, task.acks_late)
    late = task_mode.mode is Mode.PROTECT
    return TaskPlan(
        name=task.name,
        mode=task_mode.mode,
        acks_before=_acks(before),
        acks_with=_acks(True if late else before),
        serializer=str(task.serializer),
        backend=_backend(task),
        warnings=task_mode.warnings,
    )


def _on_its_route(task: Any, task_mode: TaskMode) -> TaskMode:
    if task_mode.mode is not Mode.PROTECT:
        return task_mode
    try:
        exchange = fanout_route(task)
    except Exception as error:  # noqa: BLE001 - a router of the app may raise anything
        text = (
            "it is unknown whether the task's route is a fanout exchange: "
            f"{type(error).__name__}: {error}"
        )
        return TaskMode(task_mode.mode, (*task_mode.warnings, text))
    if exchange is None:
        return task_mode
    text = (
        f"the task's route is the fanout exchange {exchange!r}, so each worker runs a copy "
        "of its own"
    )
    return TaskMode(Mode.OBSERVE, (*task_mode.warnings, text))


def _acks(late: object) -> str:
    return "after it ran" if late else "before it runs"


def _backend(task: Any) -> str:
    if task.ignore_result:
        return "none (ignore_result)"
    kind = type(task.backend).__name__
    return "none" if kind == "DisabledBackend" else kind.removesuffix("Backend").lower()
