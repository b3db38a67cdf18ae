"""Tasks that are made after the app was finalised are adopted as soon as they are bound.

The registry hears of every new task. Standing between the decorator and Celery would do too, but
then a warning of Celery's about the task would point at us instead of the app's own line.
"""

from __future__ import annotations

from typing import Any

from taskyard.install.adopt import adopt
from taskyard.install.installed_context import InstalledContext

__all__ = ["watch_registry"]


def watch_registry(app: Any, yard: InstalledContext) -> None:
    """Adopt what is registered from now on, once the app is finalised."""
    cls = type(app._tasks)

    def register(registry: Any, name: str, task: Any) -> None:
        cls.__setitem__(registry, name, task)
        if app.finalized:
            _adopt_when_bound(task, yard)

    app._tasks.__class__ = type(
        cls.__name__, (cls,), {"__module__": cls.__module__, "__setitem__": register}
    )


def _adopt_when_bound(task: Any, yard: InstalledContext) -> None:
    """`bind` comes right after the registration, and only then the task has its options."""

    def bind(app: Any) -> Any:
        del task.bind
        bound = task.bind(app)
        adopt(task, yard)
        return bound

    task.bind = bind
