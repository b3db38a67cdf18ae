"""Replay one letter with the operator verb, and read the relay's answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import Engine

from taskyard.access import Identity
from taskyard.control import Edit, KnownTypes, ReplayRequested, replay, wait_outcome
from taskyard.errors import InvalidPayload, NotFound, NotPermitted, Refused
from taskyard.ops.cli.dlq.describe_replays import waiting
from taskyard.records import Records
from taskyard.wire.decompression import UNPACKED_LIMIT

__all__ = ["Replay", "ReplayRequest", "ReplayStatus", "replay_one"]

_WAIT_S: Final = 2.0


class ReplayStatus(StrEnum):
    """The state of a replay so far."""

    APPLIED = "applied"
    PENDING = "pending"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """The request of an operator, for every dead letter that was named.

    `known` checks an `edit`; a compressed body that the edit changes may have `max_unpacked_bytes`.
    `records` show whether an older request for a job has changed it already. `bulk` is the relay's
    lane.
    """

    identity: Identity
    reason: str | None
    queue: str | None = None
    edit: Edit | None = None
    force: bool = False
    known: KnownTypes | None = None
    max_unpacked_bytes: int = UNPACKED_LIMIT
    records: Records | None = None
    bulk: bool = False


@dataclass(frozen=True, slots=True)
class Replay:
    """The outcome of one dead letter's replay; `job_id` is None if no replay was requested.

    `payload_checked` is None without an edited payload, False if the worker will check the payload.
    """

    letter: str
    verdict: ReplayStatus
    job_id: str | None = None
    request_id: str | None = None
    why: str = ""
    exit_code: int = 0
    payload_checked: bool | None = None


def replay_one(engine: Engine, name: str, request: ReplayRequest, *, alone: bool = True) -> Replay:
    """Replay a letter; a refusal is raised if it is the only one (`alone`), else it is returned.

    So is a missing right: the operator of several letters reads what became of the others.
    """
    try:
        asked = replay(
            engine,
            name,
            identity=request.identity,
            reason=request.reason,
            queue=request.queue,
            payload=request.edit,
            force=request.force,
            require_reason="strict",  # TASKYARD_REQUIRE_REASON is for programs that cannot give one
            known=request.known,
            max_unpacked_bytes=request.max_unpacked_bytes,
            records=request.records,
            bulk=request.bulk,
        )
    except (Refused, NotFound, InvalidPayload, NotPermitted) as error:
        if alone:
            raise
        return Replay(name, ReplayStatus.REFUSED, why=str(error), exit_code=error.exit_code)
    return _answered(asked, wait_outcome(engine, asked.request_id, _WAIT_S))


def _answered(asked: ReplayRequested, answer: str) -> Replay:
    status, why = _read(answer)
    return Replay(
        str(asked.letter_id),
        status,
        asked.job_id,
        str(asked.request_id),
        why,
        Refused.exit_code if status is ReplayStatus.REFUSED else 0,
        asked.payload_checked,
    )


def _read(answer: str) -> tuple[ReplayStatus, str]:
    """Read the relay's answer: `applied`, `pending`, `pending: why`, or `refused: why`."""
    head, _, why = answer.partition(": ")
    if head == ReplayStatus.PENDING:
        return ReplayStatus.PENDING, waiting(why)
    return ReplayStatus(head), why
