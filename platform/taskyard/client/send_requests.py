"""Send requests: admit the jobs, and publish their messages if that is a separate step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Final

from taskyard.broker import BatchPublisher
from taskyard.broker.connection import same_redis
from taskyard.client.publish_admitted import Publications
from taskyard.client.rendered_request import Outcome, Rendered, Upcoming
from taskyard.records import Admission, Admitted, Records
from taskyard.settings import Settings

__all__ = ["Sender"]


# Limit for one turn of shared calls. A busy event loop lets another thread run only every 5 ms
# (`sys.getswitchinterval`): with few scripts a turn it could not send as fast as the loop calls.
_SCRIPTS: Final = 16
# If each message is published separately and its confirmation awaited, the first would wait long.
_SCRIPTS_APART: Final = 2

_Settle = Callable[[Sequence[Rendered], Sequence[Outcome]], Sequence[Outcome]]


class Sender:
    """Sends requests to records and broker; threads may share it."""

    def __init__(self, settings: Settings, records: Records, publisher: BatchPublisher) -> None:
        self.one_redis = same_redis(settings)
        self._records, self._publisher = records, publisher

    def send(self, rendered: Rendered) -> Admitted:
        """Send one request in this thread; raises redis-py's errors and `PublishFailed`."""
        answers = self._records.admit_many([rendered.admission])
        (outcome,) = self._settling()([rendered], answers)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def ahead(self, requests: Iterable[Rendered]) -> Generator[Sequence[Outcome]]:
        """Send the requests of one call; yield the outcomes in order, one script at a time.

        Raises redis-py's errors, and `NotReplicated` for a whole script.
        """
        taken: deque[Rendered] = deque()

        def admissions() -> Iterator[Admission]:
            for rendered in requests:
                taken.append(rendered)
                yield rendered.admission

        settle = self._settling()
        with closing(self._records.admit_ahead(admissions())) as answers:
            for group in answers:
                yield settle([taken.popleft() for _ in group], group)

    def carry(self, upcoming: Upcoming) -> Generator[Sequence[Outcome]]:
        """Send the requests that `upcoming` gives; each gets its own answer or error.

        Raises redis-py's error if the connection is lost: then it is unknown whether the
        requests without an answer were enqueued.
        """
        taken: deque[Rendered] = deque()

        def admission() -> Admission | None:
            rendered = upcoming()
            if rendered is None:
                return None
            taken.append(rendered)
            return rendered.admission

        settle = self._settling()
        scripts = _SCRIPTS if self.one_redis else _SCRIPTS_APART
        with closing(self._records.admit_each(admission, scripts)) as answers:
            for group in answers:
                yield settle([taken.popleft() for _ in group], group)

    def _settling(self) -> _Settle:
        """Return what publishes the messages of one run that the scripts do not publish."""
        if self.one_redis:
            return lambda _, answers: answers
        return Publications(self._publisher, self._records).settled
