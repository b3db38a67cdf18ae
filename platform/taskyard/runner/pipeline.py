"""The attempt of a job type, in the child process: begin -> decode -> invoke -> judge -> finish.

Two round trips to Redis for a job that succeeds: `begin` and `finish`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from taskyard.errors import DeadLettered
from taskyard.jobs import JobContext
from taskyard.jobs.outcomes import Completed, Failed, Failure, Outcome, Retrying
from taskyard.jobs.registry import Handler
from taskyard.records import (
    Run,
)
from taskyard.runner.cause import decision_of
from taskyard.runner.failures import failure_here
from taskyard.runner.invoke import invoke, payload_of
from taskyard.runner.lease import Lease
from taskyard.runner.results import EncodeResult, encode_result
from taskyard.runner.signals import JobRetrying
from taskyard.runner.soft_limit import soft_limit_allowed, soft_limit_blocked
from taskyard.runner.steps import AttemptSteps, DecodeResult, Delivery
from taskyard.wire.letters import letter_id

__all__ = ["Runner"]


class Runner:
    """Runs attempts in one process."""

    def __init__(self, steps: AttemptSteps) -> None:
        self.steps = steps
        self._of_thread = threading.local()

    @property
    def _loops(self) -> asyncio.Runner:
        """The event loop of this thread, which is kept for its next attempts."""
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
        main process to act on, and `Reject(requeue=True)` where Redis cannot be asked.
        """
        with soft_limit_blocked():
            answer = self.steps.begin(delivery)
            if not isinstance(answer, Run):
                return self.steps.without_run(delivery, answer, decode)
            with self.steps.leased(delivery, answer) as lease:
                outcome = self._attempt(handler, delivery, answer, lease, args, kwargs)
            outcome, stored = self._checked(outcome, delivery, answer, encode)
            return self._finish(delivery, answer, outcome, stored)

    def run_part(
        self, handler: Handler, args: Sequence[Any], kwargs: Mapping[str, Any], context: JobContext
    ) -> Any:
        """Call a handler within the attempt that `context` is of; raises what it raises."""
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
        """The outcome and its stored form; a result that cannot be stored is a failure."""
        if not isinstance(outcome, Completed):
            return outcome, b""
        stored = encode_result(outcome.value, encode, self.steps.records.settings.max_result_bytes)
        if isinstance(stored, Failure):
            return self.steps.judge(stored, delivery, run), b""
        return outcome, stored

    def _finish(self, delivery: Delivery, run: Run, outcome: Outcome, stored: bytes) -> Any:
        answer = self.steps.finish(delivery, run, **decision_of(outcome, stored))
        match outcome:
            case Completed(value):
                return value
            case Retrying(failure, _):
                text = f"{failure.code}: {failure.message[:200]}"
                raise JobRetrying(answer.seq, answer.due_us, run.epoch, run.generation, text)
            case Failed(failure, _, _):
                letter = letter_id(delivery.job_id, run.epoch, run.generation)
                raise DeadLettered(letter, failure.code, failure.message)
