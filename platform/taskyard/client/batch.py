"""Many requests on their way, counted for whoever must know after a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from taskyard.client.handle import JobHandle
from taskyard.client.prepared import Outcome
from taskyard.client.requests import CheckedRequest
from taskyard.errors import NotReplicated, PublishFailed
from taskyard.records import Admitted

__all__ = ["Batch"]


class Batch:
    """The requests of one call, of which some are sent, and some of those have their handle."""

    def __init__(
        self,
        requests: Sequence[CheckedRequest],
        handle: Callable[[CheckedRequest, Admitted], JobHandle],
    ) -> None:
        self.handles: list[JobHandle] = []
        self._requests, self._handle = requests, handle
        self._sent = 0

    def departures(self) -> Iterator[CheckedRequest]:
        """The requests in their order; what was taken counts as sent."""
        for request in self._requests:
            self._sent += 1
            yield request

    def arrive(self, outcomes: Iterable[Outcome]) -> None:
        """Turn the outcomes of the oldest requests without a handle into handles.

        Raises the first error among them; what came before it has its handle.
        """
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
            self.handles.append(self._handle(self._requests[len(self.handles)], outcome))

    def unreplicated(self, error: NotReplicated) -> NotReplicated:
        """`error`, which knows the script's jobs alone, as the whole call has to hear it."""
        return error.within(range(len(self.handles), len(self._requests)))

    def broken(self, error: Exception) -> PublishFailed:
        """What to tell when `error` has ended the way."""
        known, unknown = len(self.handles), self._sent - len(self.handles)
        return PublishFailed(
            f"{known} of {len(self._requests)} jobs are enqueued; the fate of the next {unknown} "
            f"is unknown ({error}). Repeat those that have an idempotency key"
        )
