"""What a purge does with one message: cancel its job, drop it, or leave it where it is.

A message is dropped only if no worker would do anything for its job with it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from taskyard.broker import WaitingMessage
from taskyard.control.purge_outcome import Drop, Keep
from taskyard.engine.read_message import named_task, position_of, task_of
from taskyard.jobs.states import TERMINAL, State
from taskyard.records import Record, VerbTarget
from taskyard.wire import Stamp
from taskyard.wire.decompression import CompressionFault
from taskyard.wire.letter_envelope import RawMessage, plain_body
from taskyard.wire.stamp_header import usable_id

__all__ = ["Cancel", "Treatment", "embedded", "job_id_in", "treat"]

_NO_TASK: Final = "(none)"
_PARTS: Final = 3
_FOLLOWS: Final = ("callbacks", "chain", "chord")
Place = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel the job as it was seen."""

    target: VerbTarget


Treatment = Cancel | Drop | Keep


def job_id_in(message: WaitingMessage) -> str | None:
    """Return the id of the message's job; None if it has no valid one."""
    return usable_id(message.headers.get("id"))


def treat(  # noqa: PLR0911 - one match, one answer a case
    message: WaitingMessage, record: Record, queue: str, began_us: int
) -> Treatment:
    """Return what becomes of a message whose job has this record; `began_us` is of the purge.

    A dead letter is `Keep.LETTER`: the caller knows whether Postgres has it.
    """
    stamp = position_of(message)
    if stamp is not None and max(stamp.epoch, stamp.sent_us or 0) > began_us:
        return Keep.LATER
    if record.state is State.NONE:
        return _without_record(message, record.job_id, queue, stamp)
    if _is_of_another(message, record, stamp):
        return Drop.NO_JOB
    place, known = _place(message, record, stamp), _place_of(record)
    if place < known and not _serves(record, place):
        return Keep.MOVED if _is_left(record, place) else Drop.STALE
    if place > known and (record.state not in TERMINAL or place[0] > known[0]):
        return _forgotten(record, place, queue)
    if record.state is State.DEAD_LETTERED:
        return Keep.LETTER
    if record.state is State.COMPLETED:
        return Keep.CONTINUES if _is_followed(message) else Drop.ENDED
    if record.state in TERMINAL:
        return Drop.ENDED
    seen = (record.epoch, record.generation, None)
    return Cancel(VerbTarget(record.job_id, *seen, record.job_type, queue))


def _forgotten(record: Record, place: Place, queue: str) -> Cancel:
    """Return the cancel of a job whose record has lost its last writes, as the message shows."""
    if record.state in TERMINAL:  # of an earlier life
        return Cancel(VerbTarget(record.job_id, place[0], place[1], None, "", queue))
    return Cancel(VerbTarget(record.job_id, None, None, None, record.job_type, queue))


def _without_record(
    message: WaitingMessage, job_id: str, queue: str, stamp: Stamp | None
) -> Cancel:
    # Epoch 0: the message knows only Celery's own count of replacements.
    epoch = None if stamp is None else stamp.epoch or None
    generation = None if stamp is None or epoch is None else stamp.generation
    named = task_of(message)
    job_type = "" if named == _NO_TASK else named
    return Cancel(VerbTarget(job_id, epoch, generation, None, job_type, queue))


def _is_of_another(message: WaitingMessage, record: Record, stamp: Stamp | None) -> bool:
    """Return whether a worker would say that the id belongs to a job of another type."""
    own = stamp is not None and (stamp.epoch or stamp.nesting)
    named = named_task(message.headers)
    return not own and named != _NO_TASK and bool(record.job_type) and named != record.job_type


def _place_of(record: Record) -> Place:
    return record.epoch, record.generation, record.number("seq")


def _place(message: WaitingMessage, record: Record, stamp: Stamp | None) -> Place:
    if stamp is not None and stamp.epoch:
        return stamp.epoch, stamp.generation, stamp.seq
    if stamp is not None:
        # Another task has replaced the job: Celery's count says whether this is the last one.
        nesting = record.number("nesting")
        return _place_of(record) if stamp.nesting >= nesting else (record.epoch, 0, -1)
    retries = message.headers.get("retries")
    return record.epoch, 0, retries if type(retries) is int and retries >= 0 else 0


def _serves(record: Record, place: Place) -> bool:
    """Return whether an older message still does something for the job.

    Its own decision was the last one, and whoever takes it publishes what follows from that.
    """
    epoch, generation, seq = _place_of(record)
    if record.state in (State.RETRYING, State.DEAD_LETTERED):
        return place == (epoch, generation, seq - 1)
    # A job that was moved and then ended may find its message where it was.
    return record.state in TERMINAL and _is_left(record, place)


def _is_left(record: Record, place: Place) -> bool:
    first = record.fields.get("moved_from")
    if not first or record.state not in {State.REROUTED, *TERMINAL}:
        return False
    return tuple(int(part) for part in first.split(":")) <= place


def embedded(message: WaitingMessage) -> dict[str, Any] | None:
    """Return what Celery embeds in the body: callbacks, chain, chord; None if it is not JSON."""
    raw = RawMessage(body=message.body, headers=dict(message.headers))
    try:
        parts = json.loads(plain_body(raw))
    except (ValueError, RecursionError, CompressionFault):
        return None
    if not isinstance(parts, list) or len(parts) != _PARTS or not isinstance(parts[-1], dict):
        return None
    return dict(parts[-1])


def _is_followed(message: WaitingMessage) -> bool:
    """Return whether something follows the job; a body that cannot be read may say so."""
    embed = embedded(message)
    return embed is None or any(embed.get(name) for name in _FOLLOWS)
