"""Settle claimed intents: carried out, refused, or to be tried again; a statement for all."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, text

from taskyard.outbox.intents import AWAITS_ATTEMPT
from taskyard.wire.redaction import redact_text

__all__ = ["Postponement", "finish", "finish_many", "postpone_many"]

_FINISH: Final = text(
    """
    UPDATE outbox SET done_at = clock_timestamp(), attempts = attempts + 1
    WHERE id = ANY(CAST(:ids AS uuid[]))
    """
)
_POSTPONE: Final = text(
    """
    UPDATE outbox SET attempts = outbox.attempts + 1, last_error = given.why,
        not_before = clock_timestamp() + make_interval(secs => given.wait_s),
        payload = outbox.payload || given.facts
    FROM unnest(CAST(:ids AS uuid[]), CAST(:waits AS double precision[]), CAST(:whys AS text[]),
        CAST(:facts AS jsonb[])) AS given (id, wait_s, why, facts)
    WHERE outbox.id = given.id
    """
)
_LONGEST_WHY: Final = 2000


@dataclass(frozen=True, slots=True)
class Postponement:
    """Another try of an intent after `wait_s` seconds, and what went wrong; secrets are masked.

    `facts` are added to the intent's payload. With `awaits_attempt` later intents of the job do
    not wait for this one, because it only waits for an attempt of its job to end.
    """

    intent_id: uuid.UUID
    wait_s: float
    why: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    awaits_attempt: bool = False

    @property
    def added(self) -> str:
        """What is added to the payload, as JSON."""
        awaits = {AWAITS_ATTEMPT: True} if self.awaits_attempt else {}
        return json.dumps({**self.facts, **awaits})


def finish(connection: Connection, intent_id: uuid.UUID) -> None:
    """Mark an intent as carried out, or as refused for good."""
    finish_many(connection, [intent_id])


def finish_many(connection: Connection, ids: Collection[uuid.UUID]) -> None:
    """Mark intents as carried out, or as refused for good."""
    if ids:
        connection.execute(_FINISH, {"ids": [str(each) for each in ids]})


def postpone_many(connection: Connection, postponed: Sequence[Postponement]) -> None:
    """Keep intents open for another try."""
    if not postponed:
        return
    values = {
        "ids": [str(each.intent_id) for each in postponed],
        "waits": [each.wait_s for each in postponed],
        "whys": [redact_text(each.why.replace("\x00", ""))[:_LONGEST_WHY] for each in postponed],
        "facts": [each.added for each in postponed],
    }
    connection.execute(_POSTPONE, values)
