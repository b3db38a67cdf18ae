"""Adopt a task of an existing app: give it Taskyard's classes, once and in place.

The classes go under the task's own class and its own `Request` class.
"""

from __future__ import annotations

from typing import Any, Final

from celery.utils.imports import symbol_by_name
from celery.worker.request import Request

from taskyard.install.attribute_names import ACKS_BEFORE, AS_BEFORE, MODE
from taskyard.install.celery_tasks import run_of
from taskyard.install.installed_context import InstalledContext
from taskyard.install.modes import Mode
from taskyard.install.observed_request import ObservedRequest
from taskyard.install.protected_request import ProtectedRequest
from taskyard.install.protected_task import ProtectedTask

__all__ = ["adopt", "composed_request", "protect"]

# What late acknowledgement needs; a task that requires early acknowledgement is not protected.
_LATE: Final = {
    "acks_late": True,
    "reject_on_worker_lost": True,
    "acks_on_failure": True,
    "acks_on_timeout": True,
    "retry_on_worker_lost": False,
}


def adopt(task: Any, yard: InstalledContext) -> None:
    """Give a bound task the classes of its mode; to adopt it again changes nothing."""
    if hasattr(task, MODE):
        return
    task_mode = yard.task_mode_of(task)
    yard.task_modes[task.name] = task_mode
    setattr(task, ACKS_BEFORE, task.acks_late)
    setattr(task, MODE, task_mode.mode)
    if task_mode.mode is Mode.OBSERVE:
        request = composed_request(task.Request, ObservedRequest)
        _become(task, (type(task),), {"yard": yard, "Request": request})
    elif task_mode.mode is Mode.PROTECT:
        protect(task, yard)


def protect(task: Any, yard: Any) -> None:
    """Give a bound task the classes and options that protect it."""
    observed = composed_request(task.Request, ObservedRequest)
    before = {"Request": observed, **{name: getattr(task, name) for name in _LATE}}
    setattr(task, AS_BEFORE, before)
    request = composed_request(task.Request, ProtectedRequest)
    facts = {"yard": yard, "Request": request, **_LATE}
    run = run_of(task)
    if run is not None:
        facts["run"] = run
    _become(task, (ProtectedTask, type(task)), facts)


def _become(task: Any, bases: tuple[type, ...], facts: dict[str, Any]) -> None:
    """Change the class of a task to a subclass of that class."""
    cls = type(task)
    as_before = {"__module__": cls.__module__, "__doc__": cls.__doc__}
    names = {**as_before, "__qualname__": cls.__qualname__, **facts}
    task.__class__ = type(cls.__name__, bases, names)


def composed_request(own: Any, ours: type) -> type:
    """Return a class composed of the app's request class and Taskyard's.

    The methods of the app's class come first, and call Taskyard's by `super`.
    """
    cls: type = symbol_by_name(own)
    if cls is Request:
        return ours
    return type(cls.__name__, (cls, ours), {"__module__": cls.__module__})
