"""The class of protected tasks: their body runs as one attempt of a job."""

from __future__ import annotations

from typing import Any

from celery import Task

from taskyard.engine.continuations import fix_continuations
from taskyard.engine.guarded_errbacks import guard
from taskyard.engine.publish_continuations import dead_letter_if_done, publish_continuations
from taskyard.engine.read_message import position_in
from taskyard.engine.source_queue import HOLDER
from taskyard.engine.task import PARTS, delivery_in
from taskyard.install.attribute_names import ATTEMPT
from taskyard.install.celery_tracer import traced
from taskyard.install.effective_stamp import effective_stamp
from taskyard.install.installed_context import InstalledContext
from taskyard.install.withheld_publications import Attempt
from taskyard.runner import JobSkipped

__all__ = ["ProtectedTask"]


class ProtectedTask(Task):  # type: ignore[misc]
    """A base class that goes before the task's own class; each method also calls the task's own."""

    abstract = True
    yard: InstalledContext

    @property
    def __trace__(self) -> Any:
        """Return Celery's tracer of the task, which Celery sets once for each process."""
        return self.__dict__.get("__trace__")

    @__trace__.setter
    def __trace__(self, tracer: Any) -> None:
        self.__dict__["__trace__"] = None if tracer is None else traced(self, tracer)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task's body.

        In a worker it runs as an attempt; a direct or eager call runs it without one.
        """
        request = self.request
        if not self._begins_an_attempt():
            return super().__call__(*args, **kwargs)
        fix_continuations(request)
        guard(self)
        delivery = delivery_in(self, effective_stamp(position_in(request), request.retries))
        attempt = Attempt(self.app, delivery.queue)
        setattr(request, ATTEMPT, attempt)
        setattr(request, PARTS, attempt.next_part)
        before_start, run = super().before_start, super().__call__

        def body() -> Any:
            before_start(request.id, request.args, request.kwargs)
            return run(*args, **kwargs)

        try:
            value = self.yard.task_runner.run_task(self, delivery, attempt, body)
        except JobSkipped as skipped:
            dead_letter_if_done(self, skipped)
            raise
        publish_continuations(self, value)
        return value

    def _begins_an_attempt(self) -> bool:
        request = self.request
        inside = request.get(ATTEMPT) is not None
        outside = request.called_directly or request.is_eager
        return request.get(HOLDER) is not None and not inside and not outside

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Do nothing if an attempt begins with this call; else call the task's own hook.

        The attempt calls the hook itself, before the body: so an error of the hook is a failure of
        the attempt.
        """
        if not self._begins_an_attempt():
            super().before_start(task_id, args, kwargs)

    @property
    def _attempt(self) -> Attempt | None:
        found: Attempt | None = self.request.get(ATTEMPT)
        return found

    def retry(self, *args: Any, throw: bool = True, **options: Any) -> Any:
        """Retry as Celery's `retry` does; the message is published when the retry is decided."""
        attempt = self._attempt
        if attempt is None:
            return super().retry(*args, throw=throw, **options)
        with attempt.catching():
            retry = super().retry(*args, throw=False, **options)
        attempt.keep(retry)
        if throw:
            raise retry
        return retry

    def signature_from_request(self, *args: Any, **options: Any) -> Any:
        """Return the signature of a retry as Celery does, but hold its publication back."""
        signature = super().signature_from_request(*args, **options)
        attempt = self._attempt
        if attempt is not None:
            attempt.hold(signature)
        return signature

    def on_replace(self, sig: Any) -> Any:
        """Replace the task as Celery does, but publish `sig` only after the decision."""
        attempt = self._attempt
        if attempt is None:
            return super().on_replace(sig)
        with attempt.postponing(sig):
            return super().on_replace(sig)
