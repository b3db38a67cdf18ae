"""Read a delivery: it is a dead letter, a message that the broker dropped, or neither."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from taskyard.clock import from_us
from taskyard.mirror.delivery_port import Delivery
from taskyard.mirror.rabbit_drops import is_drop, letter_of_drop
from taskyard.wire import Letter, letter_id

__all__ = ["Readable", "Unreadable", "holds_nul", "read"]


@dataclass(frozen=True, slots=True)
class Readable:
    """A dead letter with its key.

    The dead letter contains the time of its decision, so every copy has the same key.
    """

    delivery: Delivery
    letter: Letter
    id: uuid.UUID
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Bytes that are no dead letter, and why; or a dead letter that is stored only as bytes."""

    delivery: Delivery
    why: str
    is_letter: bool = False


def read(delivery: Delivery) -> Readable | Unreadable:
    """Return what `delivery` is: a dead letter, or unreadable bytes.

    This never raises, since every message in the queue must become a row.
    """
    if delivery.fault:
        return Unreadable(delivery, f"not a letter: {delivery.fault}")
    try:
        letter = letter_of_drop(delivery) if is_drop(delivery) else Letter.parse(delivery.body)
        key = uuid.UUID(letter.letter_id), from_us(letter.last_failure_us)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in fault["loc"]) or "(body)"
        return Unreadable(delivery, f"not a letter: {field}: {fault['msg']}")
    except (ValueError, OverflowError, OSError, RecursionError) as error:
        return Unreadable(delivery, f"not a letter: {error}")
    own = letter_id(letter.job_id, letter.epoch, letter.generation)
    if letter.letter_id != own and not is_drop(delivery):
        # A letter with the id of another job's letter would replace that. The id of a message that
        # RabbitMQ dropped cannot be wrong: it was made here, from the message.
        why = f"not a letter: letter_id: expected that of its job, {own}, got {letter.letter_id}"
        return Unreadable(delivery, why)
    return Readable(delivery, letter, *key)


def holds_nul(item: Readable) -> bool:
    """Return whether a text or key of the letter has a NUL; the captured body may have any byte."""
    if b"\\u0000" not in item.delivery.body and b"\x00" not in item.delivery.body:
        return False
    return _nul(item.letter.model_dump(exclude={"message": {"body"}}))


def _nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_nul(key) or _nul(held) for key, held in value.items())
    return isinstance(value, list) and any(_nul(held) for held in value)
