"""The dead letters of a yard in memory; in production the mirror stores them in Postgres."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from taskyard.errors import NotFound, TaskyardError
from taskyard.jobs.letter_states import OPEN, LetterStatus, first_status
from taskyard.settings import Settings
from taskyard.testing.broker import MemoryBroker
from taskyard.testing.records import MemoryRecords
from taskyard.wire.letter_envelope import Letter, RawMessage
from taskyard.wire.stamp_header import Stamp

__all__ = ["LetterShelf", "Replays"]

UNSET: Final = object()


@dataclass
class LetterShelf:
    """Dead letters by id, in the order of their deaths, each with its status."""

    _letters: dict[str, Letter] = field(default_factory=dict)
    _status: dict[str, LetterStatus] = field(default_factory=dict)

    def post(self, letter: Letter) -> None:
        """Store a dead letter; storing the same one again changes nothing."""
        sent = Letter.parse(letter.encode())
        if sent.letter_id not in self._letters:
            self._letters[sent.letter_id] = sent
            self._status[sent.letter_id] = first_status(sent.escalate_to)

    def all(self) -> list[Letter]:
        """Return every dead letter, replayed ones included, oldest first."""
        return list(self._letters.values())

    def standing(self) -> list[Letter]:
        """Return the dead letters that were not replayed."""
        return [letter for letter in self.all() if self.status(letter) is not LetterStatus.REPLAYED]

    def status(self, letter: Letter) -> LetterStatus:
        """Return the status of a dead letter, for example `pending` or `replayed`."""
        return self._status[letter.letter_id]

    def mark_replayed(self, letter: Letter) -> None:
        """Note that the replay of a dead letter has begun."""
        self._status[letter.letter_id] = LetterStatus.REPLAYED

    def close(self, job_id: str, status: LetterStatus) -> None:
        """Give the open dead letters of a job that an operator has ended their last status."""
        for letter in self.all():
            if letter.job_id == job_id and self.status(letter) in OPEN:
                self._status[letter.letter_id] = status

    def find(self, name: str) -> Letter:
        """Return the dead letter of this id, or the last dead letter of the job with this id.

        Raises `NotFound`.
        """
        if name in self._letters:
            return self._letters[name]
        of_job = [letter for letter in self.all() if letter.job_id == name]
        if not of_job:
            raise NotFound(
                f"there is no dead letter with the id {name!r}, and none of a job with this "
                f"id; this yard has {len(self._letters)}, see yard.letters"
            )
        return of_job[-1]


@dataclass
class Replays:
    """The replay of dead letters: the rule of `taskyard.control`, then the publication."""

    settings: Settings
    records: MemoryRecords
    broker: MemoryBroker
    letters: LetterShelf

    def replay(self, letter: Letter, *, payload: Any, queue: str | None, force: bool) -> int:
        """Start the job's next generation and publish its message; raises `Refused`."""
        message = self._permitted(letter, payload, force=force)
        target = letter.queue if queue is None else queue
        top = self.settings.queue(target).priorities
        priority = None if letter.priority is None else max(1, min(letter.priority, top))
        opened = self.records.replay(
            job_id=letter.job_id,
            epoch=letter.epoch,
            generation=letter.generation,
            request_id=str(uuid.uuid4()),
            job_type=letter.job_type,
            queue=target,
            priority=priority,
        )
        place = {"epoch": letter.epoch, "generation": opened.generation}
        stamp = Stamp(**place, sent_us=opened.now_us, policy=_policy(letter.message))
        self.broker.publish(
            message,
            queue=target,
            priority=priority,
            job_id=letter.job_id,
            stamp=stamp,
            strip=("expires", "eta"),
        )
        self.letters.mark_replayed(letter)
        return opened.generation

    def _permitted(self, letter: Letter, payload: Any, *, force: bool) -> RawMessage:
        """Return the message to publish, if the operators' rule allows the replay."""
        try:
            # The verbs' packages need SQLAlchemy and Alembic, which a yard needs for nothing else.
            from taskyard.control.replay_eligibility import Candidate, check_replayable  # noqa: PLC0415
            from taskyard.control.replayed_message import Edit, edited  # noqa: PLC0415
        except ImportError as error:
            raise TaskyardError(
                "a replay needs the operators' rule from taskyard.control, which was not "
                f"imported ({error}); install 'taskyard[testing]'"
            ) from error
        candidate = Candidate(
            letter_id=letter.letter_id,
            status=self.letters.status(letter),
            category=letter.category,
            eligible=letter.replay_eligible,
        )
        check_replayable(candidate, edited=payload is not UNSET, forced=force)
        if payload is UNSET:
            return letter.message
        return edited(letter.message, Edit(args=[payload]))


def _policy(message: RawMessage) -> Mapping[str, object] | None:
    try:
        stamp = Stamp.read(message.headers)
    except ValueError:
        return None
    return None if stamp is None else stamp.policy
