"""Run the attempt of a job type in the worker's child process.

The steps are begin, decode, invoke, judge, finish. A job that succeeds costs two round trips to
Redis: `begin` and `finish`.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from taskyard.errors import CodedError, DeadLettered
from taskyard.jobs import JobContext
from taskyard.jobs.attempt_outcomes import Completed, Failed, Failure, Outcome, Retrying
from taskyard.jobs.error_codes import RESULT_INVALID, RESULT_TOO_LARGE, VALIDATION_ERROR
from taskyard.jobs.handler_registry import Handler
from taskyard.jobs.types import describe
from taskyard.records import (
    Run,
)
from taskyard.runner.attempt_steps import AttemptSteps, DecodeResult, Delivery
from taskyard.runner.child_exceptions import JobRetrying
from taskyard.runner.exception_facts import failure_here
from taskyard.runner.lease import Lease
from taskyard.runner.soft_limit_masking import soft_limit_allowed, soft_limit_blocked
from taskyard.runner.stored_decision import decision_of
from taskyard.wire.letter_envelope import letter_id

__all__ = ["Runner", "encode_result"]

EncodeResult = Callable[[Any], bytes]


class Runner:
    """Runs the attempts of job types in one worker process."""

    def __init__(self, steps: AttemptSteps) -> None:
        self.steps = steps
        self._of_thread = threading.local()

    @property
    def _loops(self) -> asyncio.Runner:
        """Return the event loop of this thread, which later attempts use too."""
        if not hasattr(self._of_thread, "loops"):
            self._of_thread.loops = asyncio.Runner()
        loops: asyncio.Runner = self._of_thread.loops
        return loops

    def run(
        self,
        handler: Handler,
        delivery: Delivery,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        encode: EncodeResult,
        decode: DecodeResult,
    ) -> Any:
        """Run one attempt and return the job's result.

        Raises `JobRetrying`, `JobDeferred`, `JobSkipped`, `JobIdReused` or `DeadLettered` for the
        main process to act on, and `Reject(requeue=True)` if Redis does not answer.
        """
        with soft_limit_blocked():
            answer = self.steps.begin(delivery)
            if not isinstance(answer, Run):
                return self.steps.without_run(delivery, answer, decode)
            with self.steps.leased(delivery, answer) as lease:
                outcome = self._attempt(handler, delivery, answer, lease, args, kwargs)
            outcome, stored = self._checked(outcome, delivery, answer, encode)
            return self._finish(delivery, answer, outcome, stored, stopped=lease.stopped)

    def run_part(
        self, handler: Handler, args: Sequence[Any], kwargs: Mapping[str, Any], context: JobContext
    ) -> Any:
        """Run a handler within the attempt of `context`, and raise what the handler raises."""
        return invoke(handler, payload_of(args, kwargs), context, self._loops)

    # -- the attempt ---------------------------------------------------------------------------

    def _attempt(
        self,
        handler: Handler,
        delivery: Delivery,
        run: Run,
        lease: Lease,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Outcome:
        end = self.steps.process_end(delivery)
        try:
            payload = payload_of(args, kwargs)
            context = self.steps.context(delivery, run, lease)
            with soft_limit_allowed():
                return Completed(invoke(handler, payload, context, self._loops))
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its failure
            end.go_on(error)
            failure = failure_here(delivery.job_type, error)
            return self.steps.judge(failure, delivery, run)

    # -- finish --------------------------------------------------------------------------------

    def _checked(
        self, outcome: Outcome, delivery: Delivery, run: Run, encode: EncodeResult
    ) -> tuple[Outcome, bytes]:
        """Return the outcome of an attempt and its stored form.

        A result that cannot be stored makes the attempt a failure.
        """
        if not isinstance(outcome, Completed):
            return outcome, b""
        stored = encode_result(outcome.value, encode, self.steps.records.settings.max_result_bytes)
        if isinstance(stored, Failure):
            return self.steps.judge(stored, delivery, run), b""
        return outcome, stored

    def _finish(
        self, delivery: Delivery, run: Run, outcome: Outcome, stored: bytes, *, stopped: bool
    ) -> Any:
        facts = decision_of(outcome, stored)
        answer = self.steps.finish(delivery, run, stopped=stopped, **facts)
        match outcome:
            case Completed(value):
                return value
            case Retrying(failure, _):
                text = f"{failure.code}: {failure.summary[:200]}"
                raise JobRetrying(answer.seq, answer.due_us, run.epoch, run.generation, text)
            case Failed(failure, _, _):
                letter = letter_id(delivery.job_id, run.epoch, run.generation)
                raise DeadLettered(letter, failure.code, failure.summary)


def encode_result(value: Any, encode: EncodeResult, limit: int) -> bytes | Failure:
    """Return the bytes to store for a result, or a text that says why it cannot be stored.

    The text also says how to correct the handler. `encode` may raise anything, because it calls
    classes of the handler. `limit` is the size of the stored form in bytes, about 200 more than
    the value's own size.
    """
    try:
        stored = encode(value)
    except Exception as error:  # noqa: BLE001 - reported as the job's failure
        text = (
            f"the result is not JSON: {type(error).__name__}: {error}"[:500]
            + "; return JSON data or a pydantic model"
        )
        return Failure(RESULT_INVALID, "BadResult", text, "", "")
    if len(stored) > limit:
        text = (
            f"the result has {len(stored)} bytes, the limit is {limit}; store the data and "
            "return a reference to it"
        )
        return Failure(RESULT_TOO_LARGE, "BadResult", text, "", "")
    return stored


def payload_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return a job's one payload: its only positional argument, or its keywords as a mapping."""
    if len(args) == 1 and not kwargs:
        return args[0]
    if not args:
        return dict(kwargs)
    message = f"expected one payload, got {len(args)} arguments and {len(kwargs)} keywords"
    raise CodedError(VALIDATION_ERROR, message)


def invoke(handler: Handler, payload: Any, context: JobContext, loops: asyncio.Runner) -> Any:
    """Call the handler and return its result as data that JSON can hold.

    Raises what the handler raises. If the payload does not fit the handler's model, raises
    `CodedError("validation_error")`.
    """
    argument = _validated(handler, payload)
    arguments = (argument, context) if handler.wants_context else (argument,)
    result = handler.function(*arguments)
    if inspect.isawaitable(result):
        result = loops.run(_settle(result))
    return result.model_dump(mode="json") if isinstance(result, BaseModel) else result


def _validated(handler: Handler, payload: Any) -> Any:
    if handler.payload_model is None:
        return payload
    try:
        return handler.payload_model.model_validate(payload)
    except ValidationError as error:
        raise CodedError(VALIDATION_ERROR, describe(handler.name, error)) from error


async def _settle(awaitable: Any) -> Any:
    return await awaitable
