"""One protected attempt, which holds back the messages of `retry()` and `replace()`.

These Celery methods publish before the outcome is decided. Inside a protected attempt their
messages are captured, and published once the record has the decision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from celery.exceptions import Ignore, Reject, Retry

from taskyard.engine.retry_message import NextMessage
from taskyard.errors import Refused
from taskyard.install.body_endings import (
    Again,
    Ending,
    Ignored,
    Raised,
    Rejected,
    Replaced,
    Returned,
    delay_s_of,
)
from taskyard.install.capturing_producer import CapturingProducer
from taskyard.jobs import JobContext
from taskyard.runner.process_end import ProcessEnd

__all__ = ["Attempt"]


class Attempt:
    """The retry or replacement that the body of one attempt has requested so far."""

    def __init__(self, app: Any, queue: str) -> None:
        self._captor = CapturingProducer(app, queue)
        self._catching = False
        self._retry: Retry | None = None
        self.replacement: Any = None
        self.delay_s = 0.0
        self._context: JobContext | None = None
        self._parts = 0

    def begun(self, context: JobContext) -> None:
        """Note that the attempt has its lease.

        `context` is what the handler of a job type would get.
        """
        self._context = context

    def next_part(self, job_type: str) -> JobContext:
        """Return the context of the next job type that the body calls, with its own key for `once`.

        Raises `Refused` before the attempt has begun.
        """
        if self._context is None:
            raise Refused(
                f"the job type {job_type} was called before its job had a lease; "
                "call it inside the task's body"
            )
        at, self._parts = self._parts, self._parts + 1
        return replace(self._context, job_id=f"{self._context.job_id}/{at}", job_type=job_type)

    @property
    def next_message(self) -> NextMessage | None:
        """Return the captured message of the retry, if there is one."""
        return self._captor.caught

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Capture the message that a retry's signature publishes inside the block."""
        self._catching = True
        try:
            yield
        finally:
            self._catching = False

    def hold(self, signature: Any) -> None:
        """Capture the message that a retry's signature publishes, and keep its delay."""
        if not self._catching:
            return
        options = signature.options
        countdown, eta = options.pop("countdown", None), options.pop("eta", None)
        self.delay_s = delay_s_of(countdown if eta is None else eta)
        options["producer"] = self._captor

    def keep(self, retry: Retry) -> None:
        """Keep the captured message of a retry, after Celery has made the retry."""
        if retry.sig is not None:
            retry.sig.options.pop("producer", None)
        self._retry = retry

    @contextmanager
    def postponing(self, signature: Any) -> Iterator[None]:
        """Make `signature.delay()` do nothing in the block; its message is published later."""
        self.replacement = signature
        signature.delay = _nothing
        try:
            yield
        finally:
            del signature.delay

    def call(self, body: Any, end: ProcessEnd) -> Ending:
        """Run the task's body and return how it ended.

        An exception that ends the process on request is raised on.
        """
        try:
            value = body()
        except BaseException as error:  # noqa: BLE001 - whatever a task raises is its failure
            end.go_on(error)
            return self._ending_of(error)
        return Returned(value) if self._retry is None else Again(self._retry)

    def _ending_of(self, error: BaseException) -> Ending:
        match error:
            case Ignore():
                return Ignored(error) if self.replacement is None else Replaced(error)
            case Reject():
                return Rejected(error)
            case Retry():
                return Again(error) if self.next_message is not None else Ignored(error)
            case _:
                return Raised(error)


def _nothing(*_: Any, **__: Any) -> None:
    return None
