"""From checked requests to enqueued jobs: admission, and publication where it is another step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from celery import Celery

from taskyard.broker import BatchPublisher, RedisPublisher
from taskyard.broker.connection import same_redis
from taskyard.broker.template import MessageTemplate
from taskyard.client.ids import new_call_id
from taskyard.client.messages import fill, first_message
from taskyard.client.publications import Outcome, Publications
from taskyard.client.requests import CheckedRequest
from taskyard.records import OWN_ID, Admission, Admitted, Publication, Records
from taskyard.settings import Settings
from taskyard.wire.letters import RawMessage
from taskyard.wire.unsent import Unsent

__all__ = ["Outcome", "Prepared", "Sender", "Settle", "Upcoming"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request with its message made; what can be wrong with it alone is found before."""

    request: CheckedRequest
    admission: Admission


Upcoming = Callable[[], Prepared | None]
Settle = Callable[[Sequence[CheckedRequest], Sequence[Outcome]], Sequence[Outcome]]


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
        name = f"{call or new_call_id()}{place}" if request.keyed else OWN_ID
        admission = Admission(
            request.job_id,
            request.job_type.name,
            request.queue,
            request.priority,
            request.unique_for_s,
            self._publication(request),
            name,
        )
        return Prepared(request, admission)

    def prepare_all(self, requests: Iterable[CheckedRequest]) -> Iterator[Prepared]:
        """The requests of one call, each when it is asked for."""
        call = new_call_id()
        return (self.prepare(request, place, call) for place, request in enumerate(requests))

    def send(self, prepared: Prepared) -> Admitted:
        """Send one in this thread; raises redis-py's errors and `PublishFailed`."""
        answers = self._records.admit_many([prepared.admission])
        (outcome,) = self.settling()([prepared.request], answers)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def ahead(self, requests: Iterable[Prepared]) -> Generator[list[Admitted]]:
        """Admit many, in groups; what is yielded is still to be settled. Raises as `send`."""
        return self._records.admit_ahead(each.admission for each in requests)

    def settling(self) -> Settle:
        """What publishes the messages that the scripts of one run do not, group by group.

        It returns the answers, with an error in the place of each failure.
        """
        if self.one_redis:
            return lambda _, answers: answers
        return Publications(self._publisher, self._records, self._message).settled

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

        settle = self.settling()
        with closing(self._records.admit_each(admission)) as answers:
            for group in answers:
                yield settle([taken.popleft().request for _ in group], group)

    def _publication(self, request: CheckedRequest) -> Publication:
        """What admission's script publishes itself, or keeps until the broker has confirmed."""
        if not self.one_redis or not isinstance(self._publisher, RedisPublisher):
            return Publication("", self._unsent(request), "", "", "", 0)
        place = self._publisher.place(request.queue, request.priority)
        key = (request.job_type.name, *place)
        template = self._templates.get(key)
        if template is None:
            template = self._templates[key] = MessageTemplate(self._app(), *key)
        return self._publisher.publication(place, fill(template, request), request.countdown_s)

    def _unsent(self, request: CheckedRequest) -> str:
        kept = None if request.policy is None else dict(request.policy)
        message = self._message(request)
        return Unsent(message=message, countdown_s=request.countdown_s, policy=kept).encode()

    def _message(self, request: CheckedRequest) -> RawMessage:
        return first_message(self._app(), request)
