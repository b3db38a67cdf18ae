"""What admission leaves to be published where broker and records are apart."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from taskyard.broker import BatchPublisher, Outgoing
from taskyard.client.requests import CheckedRequest
from taskyard.jobs.states import State
from taskyard.records import SCRIPTS_AHEAD, Admitted, Records
from taskyard.wire.headers import Stamp
from taskyard.wire.letters import RawMessage

__all__ = ["Outcome", "Publications"]

Outcome = Admitted | Exception
_Life = tuple[str, int]


class Publications:
    """The publications of one run of scripts, group by group; one thread at a time may use it."""

    def __init__(
        self,
        publisher: BatchPublisher,
        records: Records,
        message: Callable[[CheckedRequest], RawMessage],
    ) -> None:
        self._publisher, self._records, self._message = publisher, records, message
        # A script that ran before the confirmation of another's job says that it is unpublished.
        self._confirmed: deque[set[_Life]] = deque(maxlen=SCRIPTS_AHEAD)

    def settled(
        self, requests: Sequence[CheckedRequest], answers: Sequence[Outcome]
    ) -> list[Outcome]:
        """Publish what a group owes; the answers, with an error in the place of each failure."""
        errors = self._publish(self._owed(requests, answers))
        return [
            errors.get((request.job_id, answer.epoch), answer)
            if isinstance(answer, Admitted)
            else answer
            for request, answer in zip(requests, answers, strict=True)
        ]

    def _owed(
        self, requests: Sequence[CheckedRequest], answers: Sequence[Outcome]
    ) -> dict[_Life, CheckedRequest]:
        """Each life that waits and whose message the broker has still to get, once."""
        owed: dict[_Life, CheckedRequest] = {}
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, Exception) or answer.published:
                continue
            life = (request.job_id, answer.epoch)
            if answer.state is State.ACCEPTED and not any(life in each for each in self._confirmed):
                owed.setdefault(life, request)
        return owed

    def _publish(self, owed: Mapping[_Life, CheckedRequest]) -> dict[_Life, Exception]:
        """Publish, then note the confirmations; what failed."""
        if not owed:
            return {}
        failed = self._publisher.publish_many([self._outgoing(*each) for each in owed.items()])
        errors: dict[_Life, Exception] = {
            life: error for life, error in zip(owed, failed, strict=True) if error is not None
        }
        published = [life for life in owed if life not in errors]
        unnoted = self._records.confirm_many(published)
        self._confirmed.append(set(published))
        return errors | {
            life: error for life, error in zip(published, unnoted, strict=True) if error is not None
        }

    def _outgoing(self, life: _Life, request: CheckedRequest) -> Outgoing:
        job_id, epoch = life
        due_us = epoch + int(request.countdown_s * 1_000_000)
        return Outgoing(
            self._message(request),
            request.queue,
            request.priority,
            job_id,
            Stamp(epoch, policy=request.policy),
            due_us if request.countdown_s > 0 else None,
        )
