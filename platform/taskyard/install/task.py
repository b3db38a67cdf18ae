"""What adoption adds to a protected task: its body runs as one attempt of a job."""

from __future__ import annotations

import os
from typing import Any

from celery import Task

from taskyard.engine.continuations import fix_continuations
from taskyard.engine.message import stamp_in
from taskyard.engine.request import HOLDER
from taskyard.install.attempt import Attempt
from taskyard.install.marks import ATTEMPT, QUEUE
from taskyard.install.standing import standing
from taskyard.install.yard import AppYard
from taskyard.runner.pipeline import Delivery

__all__ = ["ProtectedTask"]


class ProtectedTask(Task):  # type: ignore[misc]
    """Goes before the task's own class; every method asks the task's own first or next."""

    abstract = True
    yard: AppYard

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body: as an attempt in a worker, plainly where it is called or eager."""
        request = self.request
        holder = request.get(HOLDER)
        inside = request.get(ATTEMPT) is not None
        if holder is None or inside or request.called_directly or request.is_eager:
            return super().__call__(*args, **kwargs)
        fix_continuations(request)
        delivery = self._delivery(request, holder)
        attempt = Attempt(self.app, delivery.queue)
        setattr(request, ATTEMPT, attempt)
        run = super().__call__
        return self.yard.runner.run_task(self, delivery, attempt, lambda: run(*args, **kwargs))

    def _delivery(self, request: Any, holder: str) -> Delivery:
        limits = request.timelimit or (None, None)
        return Delivery(
            job_id=request.id,
            job_type=self.name,
            queue=str(request.get(QUEUE) or ""),
            priority=None,
            stamp=standing(stamp_in(request), request.retries),
            holder=holder,
            process=str(os.getpid()),
            worker=request.hostname,
            time_limit_s=limits[0] or self.time_limit,
        )

    @property
    def _attempt(self) -> Attempt | None:
        found: Attempt | None = self.request.get(ATTEMPT)
        return found

    def retry(self, *args: Any, throw: bool = True, **options: Any) -> Any:
        """Celery's `retry`; its message is published once the retry is decided."""
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
        """Celery's, with the way of its publication."""
        signature = super().signature_from_request(*args, **options)
        attempt = self._attempt
        if attempt is not None:
            attempt.hold(signature)
        return signature

    def on_replace(self, sig: Any) -> Any:
        """Celery's, which publishes `sig`: later, once the replacement is decided."""
        attempt = self._attempt
        if attempt is None:
            return super().on_replace(sig)
        with attempt.postponing(sig):
            return super().on_replace(sig)
