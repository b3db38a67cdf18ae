"""`revoke`, `terminate` and `revoke_by_stamped_headers`: verbs on our jobs, Celery's on the others.

A task id that no record and no held message knows may be a job of ours or a task that is not
protected: it is both cancelled and given to Celery.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from taskyard.engine.celery_attempts import held_requests
from taskyard.engine.request import JobRequest
from taskyard.engine.revocation import Revocation
from taskyard.engine.revoke_jobs import (
    DENIED,
    JobOutcome,
    look_at,
    revoke_job,
)
from taskyard.engine.worker_context import WorkerContext
from taskyard.errors import InvalidPayload
from taskyard.wire.stamp_header import LONGEST_ID, usable_id

__all__ = ["BY_STAMPS", "MOST_JOBS", "Revoked", "revoke"]

MOST_JOBS: Final = 1_000
"""The main loop of each worker calls one script for each job, and does nothing else meanwhile."""
BY_STAMPS: Final = "revoke_by_stamped_headers"

RunAsCelery = Callable[[Mapping[str, Any]], Any]


@dataclass(slots=True)
class Revoked:
    """What a command has done: the outcome of each of our jobs, and Celery's own reply."""

    jobs: dict[str, JobOutcome] = field(default_factory=dict)
    celery: Any = None
    remembered: str = ""

    @property
    def outcome(self) -> str:
        """Return the outcome for the audit log."""
        if self.remembered or self.celery is not None or self._applied:
            return "applied"
        if all(job.short == DENIED for job in self.jobs.values()):
            return DENIED
        return f"refused: {self._text}"

    @property
    def reply(self) -> dict[str, str]:
        """Return the reply in Celery's form."""
        done = self.outcome == "applied"
        failed = isinstance(self.celery, Mapping) and "error" in self.celery and not self._applied
        return {"ok" if done and not failed else "error": self._text}

    @property
    def _applied(self) -> bool:
        return any(job.applied for job in self.jobs.values())

    @property
    def _text(self) -> str:
        parts = [self.remembered, *(job.text for job in self.jobs.values())]
        if isinstance(self.celery, Mapping):
            parts += [str(text) for text in self.celery.values()]
        return "; ".join(part for part in parts if part) or "no job was named"


def revoke(
    context: WorkerContext,
    command: str,
    arguments: Mapping[str, Any],
    revocation: Revocation,
    run: RunAsCelery,
    *,
    done: bool,
) -> Revoked:
    """Carry the command out; raises `InvalidPayload`, and redis-py's errors.

    `done`: another worker has ended our jobs. `run` does what Celery does, with other arguments.
    """
    if command == BY_STAMPS:
        return _by_stamps(context, arguments, revocation, run)
    return _by_ids(context, arguments, revocation, run, done=done)


def _by_ids(
    context: WorkerContext,
    arguments: Mapping[str, Any],
    revocation: Revocation,
    run: RunAsCelery,
    *,
    done: bool,
) -> Revoked:
    found, held, left = Revoked(), held_requests(), []
    for job_id in _ids(arguments, any_form=not context.only_jobs):
        if usable_id(job_id) is None:
            left.append(job_id)
            continue
        mine = held.get(job_id)
        ours, celerys = _whose(context, job_id, mine)
        if celerys:
            left.append(job_id)
        if ours and not done:
            found.jobs[job_id] = revoke_job(context, revocation, job_id, mine)
    if left:
        found.celery = run({**arguments, "task_id": left})
    return found


def _whose(context: WorkerContext, job_id: str, held: Any) -> tuple[bool, bool]:
    """Return whether an id may be a job of ours, and whether it may be another task's.

    `held` is the request with this id. A worker may also hold an observed copy of a protected task,
    from a fanout exchange.
    """
    if context.only_jobs:
        return True, False
    if held is not None and not isinstance(held, JobRequest):
        return False, True
    job_type = look_at(context, job_id, held).job_type
    ours = context.owns(job_type)
    return ours, not (job_type and ours)


def _by_stamps(
    context: WorkerContext, arguments: Mapping[str, Any], revocation: Revocation, run: RunAsCelery
) -> Revoked:
    stamps = _stamps(arguments.get("headers"))
    found = Revoked(
        remembered=f"jobs with the stamps {stamps} will be ended when a worker sees them"
    )
    context.revoked_stamps.add(stamps, revocation)
    for job_id, request in held_requests().items():
        if isinstance(request, JobRequest) and context.revoked_stamps.find(request.stamps):
            found.jobs[job_id] = revoke_job(context, revocation, job_id, request)
    if not context.only_jobs:
        found.celery = run(arguments)
    return found


def _ids(arguments: Mapping[str, Any], *, any_form: bool) -> list[str]:
    given = arguments.get("task_id")
    ids = [given] if isinstance(given, str) else given
    if not isinstance(ids, list | tuple) or not ids:
        raise InvalidPayload(f"expected one task id or a list of them, got {given!r:.60}")
    if len(ids) > MOST_JOBS:
        raise InvalidPayload(
            f"one command ends at most {MOST_JOBS} jobs, got {len(ids)}. Send several commands, or "
            "use filters: taskyard jobs cancel"
        )
    for job_id in ids:
        if not isinstance(job_id, str) or (usable_id(job_id) is None and not any_form):
            raise InvalidPayload(
                f"a job's id is a text of 1 to {LONGEST_ID} characters without control characters, "
                f"got {job_id!r:.60}"
            )
    return list(dict.fromkeys(ids))


def _stamps(given: Any) -> dict[str, Any]:
    """Return the stamps by header; Celery's command line sends a list of `header=stamp`."""
    if isinstance(given, Mapping) and given and all(isinstance(name, str) for name in given):
        return dict(given)
    pairs = [text.partition("=") for text in _texts(given)]
    if not pairs or not all(sign for _, sign, _ in pairs):
        raise InvalidPayload(
            f"expected stamps by the name of their header, or a list of header=stamp, got "
            f"{given!r:.60}"
        )
    stamps: dict[str, list[str]] = {}
    for name, _, stamp in pairs:
        stamps.setdefault(name, []).append(stamp)
    return stamps


def _texts(given: Any) -> list[str]:
    texts = given if isinstance(given, list | tuple) else ()
    return [text for text in texts if isinstance(text, str)]
