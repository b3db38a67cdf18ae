"""The requests of one `enqueue_many`: their handles, refusals and the error that ends the call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from taskyard.client.check_request import CheckedRequest
from taskyard.client.job_handle import JobHandle
from taskyard.client.rendered_request import Outcome
from taskyard.errors import KillSwitchOn, NotReplicated, PublishFailed
from taskyard.records import Admitted

__all__ = ["Batch"]


class Batch:
    """The requests of one call, with the answers of those that have one."""

    def __init__(
        self,
        requests: Sequence[CheckedRequest],
        handle: Callable[[CheckedRequest, Admitted], JobHandle],
    ) -> None:
        self._requests, self._handle = requests, handle
        self._handles: list[JobHandle] = []
        self._refused: dict[int, KillSwitchOn] = {}
        self._sent = 0

    @property
    def _answered(self) -> int:
        return len(self._handles) + len(self._refused)

    def requests_to_send(self) -> Iterator[CheckedRequest]:
        """Yield the requests in their order; a request that was yielded counts as sent."""
        for request in self._requests:
            self._sent += 1
            yield request

    def add_outcomes(self, outcomes: Iterable[Outcome]) -> None:
        """Create handles from the outcomes of the oldest requests without an answer.

        A kill switch refuses only its own requests. Raises the first other error; the requests
        before it keep their answers.
        """
        for outcome in outcomes:
            if isinstance(outcome, KillSwitchOn):
                self._refused[self._answered] = outcome
            elif isinstance(outcome, Exception):
                raise outcome
            else:
                self._handles.append(self._handle(self._requests[self._answered], outcome))

    def finish(self) -> list[JobHandle]:
        """Return the handles; raises `KillSwitchOn` for all refused requests of the call."""
        if self._refused:
            job_ids = [handle.job_id for handle in self._handles]
            raise KillSwitchOn.of_call(self._refused, job_ids)
        return self._handles

    def unreplicated(self, error: NotReplicated) -> NotReplicated:
        """Return an error that names all jobs of the call; `error` names those of one script."""
        at, count = self._answered, len(self._requests)
        jobs, rest = len(error.job_ids), at + len(error.requests)
        of_script = [at + position for position in error.requests]
        not_enqueued = sorted([*self._refused, *of_script[jobs:], *range(rest, count)])
        return error.within([*of_script[:jobs], *not_enqueued])

    def broken(self, error: Exception) -> PublishFailed:
        """Return the error that says how many jobs are enqueued, when `error` ended the call."""
        known, unknown = len(self._handles), self._sent - self._answered
        count = len(self._refused)
        are = "is" if count == 1 else "are"
        refused = f", {count} {are} refused by a kill switch" if count else ""
        return PublishFailed(
            f"{known} of {len(self._requests)} jobs are enqueued{refused}; it is unknown whether "
            f"the next {unknown} are ({error}). Repeat those that have an idempotency key"
        )
