"""From checked requests to enqueued jobs: admission, and publication where it is another step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Final

from celery import Celery

from taskyard.broker import BatchPublisher, RedisPublisher
from taskyard.broker.connection import same_redis
from taskyard.broker.template import MessageTemplate
from taskyard.client.ids import new_call_id
from taskyard.client.messages import fill, first_message
from taskyard.client.prepared import Outcome, Prepared, Upcoming
from taskyard.client.publications import Publications
from taskyard.client.requests import CheckedRequest
from taskyard.records import OWN_ID, Admission, Admitted, Publication, Records
from taskyard.settings import Settings
from taskyard.wire.letters import RawMessage
from taskyard.wire.unsent import Unsent

__all__ = ["Sender"]


# In one turn of calls that go together. A busy event loop lets another thread run only every 5 ms
# (`sys.getswitchinterval`): with few scripts a turn it could not send what the loop makes.
_SCRIPTS: Final = 16
# Where each message is published apart and its confirmation awaited, the first would wait long.
_SCRIPTS_APART: Final = 2

_Settle = Callable[[Sequence[Prepared], Sequence[Outcome]], Sequence[Outcome]]


class Sender:
    """Sends requests to records and broker; safe to share between threads."""

    def __init__(
        self,
        settings: Settings,
        records: Records,
        publisher: BatchPublisher,
        app: Callable[[], Celery],
    ) -> None:
        self.one_redis = same_redis(settings)
        self._records, self._publisher, self._app = records, publisher, app
        self._templates: dict[tuple[str, str, int], MessageTemplate] = {}

    def prepare(self, request: CheckedRequest, place: int = 0, call: str = "") -> Prepared:
        """Make all that is sent of a request; it goes under its `place` in a `call` of many.

        Where the reply is lost, it is asked for again by that name.
        """
        message = None if self.one_redis else first_message(self._app(), request)
        admission = Admission(
            request.job_id,
            request.job_type.name,
            request.queue,
            request.priority,
            request.unique_for_s,
            self._publication(request) if message is None else _kept(request, message),
            f"{call or new_call_id()}{place}" if request.keyed else OWN_ID,
        )
        return Prepared(request, admission, message)

    def prepare_all(self, requests: Iterable[CheckedRequest]) -> Iterator[Prepared]:
        """The requests of one call, each when it is asked for."""
        call = new_call_id()
        return (self.prepare(request, place, call) for place, request in enumerate(requests))

    def send(self, prepared: Prepared) -> Admitted:
        """Send one in this thread; raises redis-py's errors and `PublishFailed`."""
        answers = self._records.admit_many([prepared.admission])
        (outcome,) = self._settling()([prepared], answers)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def ahead(self, requests: Iterable[Prepared]) -> Generator[Sequence[Outcome]]:
        """Send the requests of one call; the outcomes of a script at a time, in their order.

        Raises redis-py's errors and `NotReplicated` of a whole script.
        """
        taken: deque[Prepared] = deque()

        def admissions() -> Iterator[Admission]:
            for prepared in requests:
                taken.append(prepared)
                yield prepared.admission

        settle = self._settling()
        with closing(self._records.admit_ahead(admissions())) as answers:
            for group in answers:
                yield settle([taken.popleft() for _ in group], group)

    def carry(self, upcoming: Upcoming) -> Generator[Sequence[Outcome]]:
        """Send what `upcoming` gives until there is none; each has its own answer or error.

        Raises redis-py's error when the server is lost: what was taken and not answered may be
        enqueued or not.
        """
        taken: deque[Prepared] = deque()

        def admission() -> Admission | None:
            prepared = upcoming()
            if prepared is None:
                return None
            taken.append(prepared)
            return prepared.admission

        settle = self._settling()
        scripts = _SCRIPTS if self.one_redis else _SCRIPTS_APART
        with closing(self._records.admit_each(admission, scripts)) as answers:
            for group in answers:
                yield settle([taken.popleft() for _ in group], group)

    def _settling(self) -> _Settle:
        """What publishes the messages that the scripts of one run do not, group by group."""
        if self.one_redis:
            return lambda _, answers: answers
        return Publications(self._publisher, self._records).settled

    def _publication(self, request: CheckedRequest) -> Publication:
        """What admission's script publishes itself."""
        publisher = self._publisher
        if not isinstance(publisher, RedisPublisher):
            raise TypeError(f"one Redis for records and broker needs its publisher, {publisher!r}")
        place = publisher.place(request.queue, request.priority)
        key = (request.job_type.name, *place)
        template = self._templates.get(key)
        if template is None:
            template = self._templates[key] = MessageTemplate(self._app(), *key)
        return publisher.publication(place, fill(template, request), request.countdown_s)


def _kept(request: CheckedRequest, message: RawMessage) -> Publication:
    """What the record keeps until the broker has confirmed the message."""
    policy = None if request.policy is None else dict(request.policy)
    unsent = Unsent(message=message, countdown_s=request.countdown_s, policy=policy).encode()
    return Publication("", unsent, "", "", "", 0)
