"""Find the effective mode of a task, and why it may be less than the requested one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from celery.app.annotations import resolve_all

from taskyard.install.modes import Mode, Modes

__all__ = ["TaskMode", "acks_early_on_purpose", "judge_task"]

_STRATEGY: Final = "celery.worker.strategy:default"


@dataclass(frozen=True, slots=True)
class TaskMode:
    """The effective mode of a task; `warnings` say why it is less than the requested one."""

    mode: Mode
    warnings: tuple[str, ...] = ()


def judge_task(task: Any, modes: Modes, against_broker: str | None) -> TaskMode:
    """Return the effective mode of a bound task; raises `InvalidSettings` for an unknown mode.

    `against_broker` says why the app's broker cannot protect tasks.
    """
    asked = modes.of(task.name, getattr(task, "taskyard", None))
    if asked is Mode.OFF:
        return TaskMode(Mode.OFF)
    if task.Strategy != _STRATEGY:
        return TaskMode(
            Mode.OFF,
            (f"the task's strategy {task.Strategy} handles messages without Celery's own code",),
        )
    if asked is Mode.OBSERVE:
        return TaskMode(Mode.OBSERVE)
    against = tuple(_objections(task, against_broker))
    return TaskMode(Mode.OBSERVE if against else Mode.PROTECT, against)


def _objections(task: Any, against_broker: str | None) -> list[str]:
    found = []
    if acks_early_on_purpose(task):
        found.append(
            "the task sets acks_late=False itself, so its message is acknowledged before it "
            "runs, and it has no lease"
        )
    if task.serializer != "json":
        found.append(
            f"serializer {task.serializer!r}: its messages are in a format that "
            "operators cannot read or edit"
        )
    if against_broker is not None:
        found.append(against_broker)
    return found


def acks_early_on_purpose(task: Any) -> bool:
    """Return whether the task itself sets `acks_late=False`; Celery's default does not count.

    `Task.bind` copies the app's default into the task's class. Names that the class had before
    come before the mark that binding leaves: a class keeps its names in the order of their
    setting.
    """
    if task.acks_late is not False:
        return False
    for notes in resolve_all(task.app.annotations, type(task)):
        if "acks_late" in notes:
            return True
    for cls in type(task).__mro__:
        names = list(vars(cls))
        if "acks_late" not in names or vars(cls)["acks_late"] is None:
            continue
        bound = names.index("__bound__") if "__bound__" in names else len(names)
        return names.index("acks_late") < bound
    return False
