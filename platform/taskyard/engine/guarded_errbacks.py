"""Guard what Celery's result backend publishes by itself: errbacks and the bodies of chords.

Celery raises an error of such a publication after the job's outcome is decided, and would repeat
the report without end. Here such a message becomes a dead letter of its own, as other continuations
do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from celery.app.task import Context
from celery.canvas import maybe_signature

from taskyard.engine.continuations import Continuation, check_route, is_passing, whole
from taskyard.engine.lost_continuations import dead_letter
from taskyard.engine.source_queue import HOLDER
from taskyard.engine.worker_context import WorkerContext

__all__ = ["guard"]

_GUARDED: Final = "_taskyard_guarded"


def guard(task: Any) -> None:
    """Make a failed publication of an errback or a chord's body a dead letter, for this task's app.

    It changes the result backend and the `amqp` of the app, in this process and thread.

    Only messages that belong to a job of Taskyard are treated differently than by Celery.
    """
    backend, amqp, yard = task.backend, task.app.amqp, task.yard
    if not hasattr(backend, _GUARDED) and hasattr(backend, "_call_task_errbacks"):
        setattr(backend, _GUARDED, True)
        backend._call_task_errbacks = partial(_errbacks, yard, backend._call_task_errbacks)
        backend.on_chord_part_return = partial(_chord_part, yard, backend.on_chord_part_return)
    if not hasattr(amqp, _GUARDED):
        setattr(amqp, _GUARDED, True)
        amqp._retry_publish = partial(_chord_body, task.app, amqp._retry_publish)


def _errbacks(yard: WorkerContext, plain: Callable[..., Any], request: Any, *failure: Any) -> None:
    if not _is_ours(request):
        plain(request, *failure)
        return
    for index, one in enumerate(request.errbacks or ()):
        alone = Context(vars(request), errbacks=[whole(one)])
        _or_dead_letter(
            yard,
            request,
            Continuation("errback", index, one, (request.id,)),
            partial(_call_errback, plain, alone, failure),
        )


def _call_errback(plain: Callable[..., Any], alone: Any, failure: tuple[Any, ...]) -> None:
    check_route(alone.errbacks[0])
    plain(alone, *failure)


def _chord_part(
    yard: WorkerContext, plain: Callable[..., Any], request: Any, *outcome: Any, **options: Any
) -> None:
    if not _is_ours(request):
        plain(request, *outcome, **options)
        return
    body = whole(request.chord)

    def count() -> None:
        # Celery reads the body only with the last part, and then fails in its own error handling.
        maybe_signature(body, app=None)
        check_route(body)
        plain(request, *outcome, **options)

    _or_dead_letter(yard, request, Continuation("chord", 0, body), count)


def _chord_body(
    app: Any, plain: Callable[..., Any], publish: Any, *args: Any, **options: Any
) -> Any:
    """Publish the dead letter of a chord's body; Celery would only mark the body as failed."""
    try:
        return plain(publish, *args, **options)
    except Exception as error:
        if is_passing(error):
            raise
        around = app.current_worker_task
        body = getattr(publish, "__self__", None)
        if around is not None and _is_ours(around.request) and publish.__name__ == "delay":
            one = Continuation("chord", 0, dict(body or {}), args)
            dead_letter(around.yard, around.request, one, error)
        raise


def _or_dead_letter(
    yard: WorkerContext, request: Any, one: Continuation, act: Callable[[], Any]
) -> None:
    try:
        act()
    except Exception as error:
        if is_passing(error):
            raise
        dead_letter(yard, request, one, error)


def _is_ours(request: Any) -> bool:
    return request is not None and getattr(request, HOLDER, None) is not None
