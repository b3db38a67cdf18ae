"""One letter's replay: the operator verb, and what the relay answered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import Engine

from taskyard.control import Edit, Identity, replay, wait_outcome
from taskyard.errors import InvalidPayload, NotFound, Refused

__all__ = ["Replay", "Verdict", "Wish", "replay_one"]

_WAIT_S: Final = 2.0


class Verdict(StrEnum):
    """What became of it so far."""

    APPLIED = "applied"
    PENDING = "pending"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator wants of every letter that was named."""

    identity: Identity
    reason: str | None
    queue: str | None = None
    edit: Edit | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Replay:
    """One letter's outcome; `job_id` is None where nothing was asked for."""

    letter: str
    verdict: Verdict
    job_id: str | None = None
    request_id: str | None = None
    why: str = ""
    exit_code: int = 0


def replay_one(engine: Engine, name: str, wish: Wish, *, alone: bool = True) -> Replay:
    """Replay a letter; a refusal is raised if it is `alone`, else it is a value."""
    try:
        asked = replay(
            engine,
            name,
            identity=wish.identity,
            reason=wish.reason,
            queue=wish.queue,
            payload=wish.edit,
            force=wish.force,
            require_reason="strict",  # TASKYARD_REQUIRE_REASON is for programs that cannot give one
        )
    except (Refused, NotFound, InvalidPayload) as error:
        if alone:
            raise
        return Replay(name, Verdict.REFUSED, why=str(error), exit_code=error.exit_code)
    letter, job_id, request_id = str(asked.letter_id), asked.job_id, str(asked.request_id)
    answer = wait_outcome(engine, asked.request_id, _WAIT_S)
    verdict, why = _read(answer)
    code = Refused.exit_code if verdict is Verdict.REFUSED else 0
    return Replay(letter, verdict, job_id, request_id, why, code)


def _read(answer: str) -> tuple[Verdict, str]:
    """The relay's answer: `applied`, `pending`, or `refused: why`."""
    head, _, why = answer.partition(": ")
    if head == Verdict.PENDING:
        return Verdict.PENDING, "the relay has not answered yet and will carry it out"
    return Verdict(head), why
