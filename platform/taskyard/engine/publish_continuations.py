"""Publish the continuations of a completed job, one by one.

Celery publishes them together, and a single one that cannot be published fails the job. Here the
job is already completed: valid continuations are published, and each invalid one becomes a dead
letter of its own.
"""

from __future__ import annotations

from typing import Any

from celery.canvas import group, signature
from celery.exceptions import Reject

from taskyard.engine.continuations import (
    Continuation,
    check_route,
    continuation_id,
    continuations_of,
    is_passing,
    whole,
)
from taskyard.engine.lost_continuations import dead_letter, dead_letter_unpublished
from taskyard.engine.publish_errors import PUBLISH_ERRORS
from taskyard.runner import JobSkipped
from taskyard.runner.soft_limit_masking import soft_limit_blocked

__all__ = ["dead_letter_if_done", "publish_continuations"]


def publish_continuations(task: Any, value: Any) -> None:
    """Publish the continuations of the job that `task` runs; raises `Reject` to repeat it later."""
    request = task.request
    following = list(continuations_of(request, value))
    # Else Celery would publish them a second time.
    request.callbacks = request.chain = None
    if not following:
        return
    with soft_limit_blocked():
        siblings = _Siblings(task, sum(one.kind == "callback" for one in following))
        for one in following:
            try:
                _publish_or_dead_letter(task, one, siblings)
            except Exception as error:
                if not is_passing(error):
                    raise
                text = f"{one.kind} {one.index} of job {request.id} was not published: {error}"
                raise Reject(text, requeue=True) from error
        siblings.leave_trail()


def dead_letter_if_done(task: Any, skipped: JobSkipped) -> None:
    """Dead-letter the unpublished continuations of a completed job whose result has expired.

    Raises `Reject` to repeat it later.
    """
    if not skipped.reason.startswith(JobSkipped.DONE):
        return
    try:
        dead_letter_unpublished(task.yard, task.request, None, skipped.reason)
    except PUBLISH_ERRORS as error:
        raise Reject(
            f"dead letters of the job's continuations were not published: {error}", requeue=True
        ) from error


def _publish_or_dead_letter(task: Any, one: Continuation, siblings: _Siblings) -> None:
    try:
        siblings.note(_publish(task, one, siblings))
    except Exception as error:
        if is_passing(error):
            raise
        dead_letter(task.yard, task.request, one, error)


class _Siblings:
    """The several callbacks of a job, which Celery makes a group.

    The id of the group is on their messages and in the result.
    """

    def __init__(self, task: Any, count: int) -> None:
        self._task, self._results = task, []  # type: Any, list[Any]
        self.group_id = continuation_id(task.request.id, "group", 0) if count > 1 else None

    def note(self, result: Any) -> None:
        if result is not None:
            self._results.append(result)

    def leave_trail(self) -> None:
        if self._results:
            self._task.add_trail(self._task.app.GroupResult(self.group_id, self._results))


def _publish(task: Any, one: Continuation, siblings: _Siblings) -> Any:
    """Publish several callbacks; return what Celery records for each.

    None if Celery itself records it.
    """
    app, request = task.app, task.request
    inherits = app.conf.task_inherit_parent_priority
    options: dict[str, Any] = {
        "parent_id": request.id,
        "root_id": request.root_id or request.id,
        "priority": request.delivery_info.get("priority") if inherits else None,
    }
    check_route(whole(one.signature))
    made = signature(one.signature, app=app)
    if one.kind == "chain":
        options["chain"] = one.rest
    elif siblings.group_id is not None and not isinstance(made, group):
        options |= {"group_id": siblings.group_id, "add_to_parent": False}
        return app.amqp._retry_publish(made.apply_async, one.before, **options)
    app.amqp._retry_publish(made.apply_async, one.before, **options)
    return None
