"""Celery's own tasks as jobs: a repeated attempt publishes tasks with the same ids.

`celery.group`, `celery.chord` and `celery.chunks` publish other tasks before the outcome is
decided. An attempt that is killed in the middle runs again, and must not create second jobs.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from celery.canvas import chunks as chunked
from celery.canvas import group, signature

__all__ = ["CELERY_TASKS", "run_of"]

CELERY_TASKS: Final = (
    "celery.accumulate",
    "celery.backend_cleanup",
    "celery.chain",
    "celery.chord",
    "celery.chord_unlock",
    "celery.chunks",
    "celery.group",
    "celery.map",
    "celery.starmap",
)
"""The tasks that Celery registers with every app."""

_PUBLISHED: Final = uuid.UUID("8c8f6b0e-51f2-5a0c-9f0f-3b1f2d6f4c27")


def run_of(task: Any) -> Callable[..., Any] | None:
    """Return a replacement for the `run` method of one of Celery's own tasks.

    None if the task keeps Celery's method.
    """
    plain = task.run
    match task.name:
        case "celery.group" | "celery.chord":
            return _publishing(plain)
        case "celery.map" | "celery.starmap":
            return _mapping(plain)
        case "celery.chunks":
            return _run_chunks
        case "celery.chain":
            return _refuse_chain
        case _:
            return None


def _publishing(plain: Callable[..., Any]) -> Callable[..., Any]:
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        header = kwargs.get("tasks", kwargs.get("header", args[0] if args else ()))
        for task in header if isinstance(header, list) else ():
            _checked(task)
        for place, value in (*enumerate(args), *kwargs.items()):
            _fix_ids(value, f"{self.request.id}:{place}")
        return plain(*args, **kwargs)

    return run


def _mapping(plain: Callable[..., Any]) -> Callable[..., Any]:
    def run(_: Any, task: Any, it: Any) -> Any:
        return plain(_checked(task), it)

    return run


def _checked(task: Any) -> Any:
    if not isinstance(task, dict) or not isinstance(task.get("task"), str):
        raise TypeError(
            f"expected a signature (a mapping in which 'task' is the task's name), got {task!r:.60}"
        )
    return task


def _fix_ids(value: Any, path: str) -> None:
    """Give an id to every signature inside a task's arguments that has none."""
    if isinstance(value, dict):
        options = value.setdefault("options", {}) if isinstance(value.get("task"), str) else None
        if isinstance(options, dict):
            options.setdefault("task_id", _id_at(path))
        inner: Any = value.items()
    else:
        inner = enumerate(value) if isinstance(value, list | tuple) else ()
    for name, item in inner:
        _fix_ids(item, f"{path}:{name}")


def _run_chunks(self: Any, task: Any, it: Any, n: int) -> Any:
    """Run `celery.chunks` as Celery does, but route by the task's name."""
    each = signature(_checked(task), app=self.app)
    parts = chunked(each, it, n, app=self.app).group().tasks
    for at, part in enumerate(parts):
        part.set(task_id=_id_at(f"{self.request.id}:{at}"))
    together = group(parts, app=self.app)
    return together.apply_async(route_name=each.task, task_id=_id_at(self.request.id))


def _refuse_chain(self: Any, *args: Any, **kwargs: Mapping[str, Any]) -> Any:
    raise NotImplementedError(
        "celery.chain cannot run as a task: publish the chain's first task, with the others in "
        "its body's embed 'chain'"
    )


def _id_at(path: str) -> str:
    return str(uuid.uuid5(_PUBLISHED, path))
