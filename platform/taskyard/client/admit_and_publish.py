"""Admit jobs in Redis, and publish their messages where that is a separate step.

Where records and broker are one Redis, the admission script publishes the messages itself. If the
broker is another server, `_Publications` publishes them after the script.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Final

from taskyard.broker import BatchPublisher, Outgoing
from taskyard.broker.connection import same_redis
from taskyard.client.check_request import CheckedRequest
from taskyard.client.rendered_request import Outcome, Rendered, Upcoming
from taskyard.clock import us_of
from taskyard.jobs.states import State
from taskyard.records import SCRIPTS_AHEAD, Admission, Admitted, Records
from taskyard.settings import Settings
from taskyard.wire.letter_envelope import RawMessage
from taskyard.wire.stamp_header import Stamp

__all__ = ["Sender"]

# Limit for one turn of shared calls. A busy event loop lets another thread run only every 5 ms
# (`sys.getswitchinterval`): with few scripts a turn it could not send as fast as the loop calls.
_SCRIPTS: Final = 16
# If each message is published separately and its confirmation awaited, the first would wait long.
_SCRIPTS_APART: Final = 2

_Life = tuple[str, int]
_Settle = Callable[[Sequence[Rendered], Sequence[Outcome]], Sequence[Outcome]]


class Sender:
    """Sends requests to records and broker; threads may share it."""

    def __init__(self, settings: Settings, records: Records, publisher: BatchPublisher) -> None:
        self.one_redis = same_redis(settings)
        self._records, self._publisher = records, publisher

    def send(self, rendered: Rendered) -> Admitted:
        """Admit one job and publish its message; raises redis-py's errors and `PublishFailed`."""
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
        return _Publications(self._publisher, self._records).settled


class _Publications:
    """Publishes the messages of one run of scripts; one thread at a time may use it."""

    def __init__(self, publisher: BatchPublisher, records: Records) -> None:
        self._publisher, self._records = publisher, records
        # A script that ran before another job's confirmation reports that job as unpublished.
        self._confirmed: deque[set[_Life]] = deque(maxlen=SCRIPTS_AHEAD)

    def settled(self, group: Sequence[Rendered], answers: Sequence[Outcome]) -> list[Outcome]:
        """Publish the messages of one group of jobs.

        Returns the answers of the jobs, with an error in place of each that failed.
        """
        errors = self._publish(self._owed(group, answers))
        return [
            errors.get((one.request.job_id, answer.epoch), answer)
            if isinstance(answer, Admitted)
            else answer
            for one, answer in zip(group, answers, strict=True)
        ]

    def _owed(self, group: Sequence[Rendered], answers: Sequence[Outcome]) -> dict[_Life, Outgoing]:
        """Return the message of each epoch that is not published yet, once."""
        owed: dict[_Life, Outgoing] = {}
        for one, answer in zip(group, answers, strict=True):
            if isinstance(answer, Exception) or answer.published or one.message is None:
                continue
            life = (one.request.job_id, answer.epoch)
            if answer.state is State.ACCEPTED and not any(life in each for each in self._confirmed):
                owed.setdefault(life, _outgoing(one.request, one.message, answer.epoch))
        return owed

    def _publish(self, owed: Mapping[_Life, Outgoing]) -> dict[_Life, Exception]:
        """Publish messages, then note their confirmations in the records; return what failed."""
        if not owed:
            return {}
        failed = self._publisher.publish_many(list(owed.values()))
        errors: dict[_Life, Exception] = {
            life: error for life, error in zip(owed, failed, strict=True) if error is not None
        }
        published = [life for life in owed if life not in errors]
        unnoted = self._records.confirm_many(published) if published else []
        self._confirmed.append(set(published))
        return errors | {
            life: error for life, error in zip(published, unnoted, strict=True) if error is not None
        }


def _outgoing(request: CheckedRequest, message: RawMessage, epoch: int) -> Outgoing:
    due_us = epoch + us_of(request.countdown_s)
    return Outgoing(
        message,
        request.queue,
        request.priority,
        request.job_id,
        Stamp(epoch, policy=request.policy),
        due_us if request.countdown_s > 0 else None,
    )
