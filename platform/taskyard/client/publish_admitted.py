"""Publish messages that the admission script does not publish.

That is necessary if broker and records are different servers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from taskyard.broker import BatchPublisher, Outgoing
from taskyard.client.check_request import CheckedRequest
from taskyard.client.rendered_request import Outcome, Rendered
from taskyard.clock import us_of
from taskyard.jobs.states import State
from taskyard.records import SCRIPTS_AHEAD, Admitted, Records
from taskyard.wire.letter_envelope import RawMessage
from taskyard.wire.stamp_header import Stamp

__all__ = ["Publications"]

_Life = tuple[str, int]


class Publications:
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
