"""The record fields that a run compares, read in batches of limited size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis

from taskyard.clock import redis_time_us
from taskyard.inspection.search_budget import Budget
from taskyard.jobs.states import State
from taskyard.records import Keys

__all__ = ["Seen", "read_records", "scan_records", "server_now_us"]

BATCH: Final = 500
_NUMBERS: Final = (
    "epoch",
    "generation",
    "seq",
    "version",
    "lease_until",
    "due",
    "admitted",
    "started",
    "decided",
    "ended",
)
_TEXTS: Final = (
    "state", "published", "request", "type", "domain", "queue", "priority", "worker", "unsent",
)  # fmt: skip
_FIELDS: Final = (*_NUMBERS, *_TEXTS)


@dataclass(frozen=True, slots=True)
class Seen:
    """The compared fields of one record; times are microseconds, 0 before the event."""

    job_id: str
    state: State
    numbers: dict[str, int]
    texts: dict[str, str]

    @property
    def position(self) -> tuple[int, int, int]:
        """Return (epoch, generation, seq), as in a message's stamp."""
        return self.epoch, self.generation, self.numbers["seq"]

    @property
    def epoch(self) -> int:
        """The job's epoch."""
        return self.numbers["epoch"]

    @property
    def generation(self) -> int:
        """The number of replays and redirects so far."""
        return self.numbers["generation"]

    @property
    def version(self) -> int:
        """The number of events of the record so far."""
        return self.numbers["version"]

    @property
    def touched_us(self) -> int:
        """Return the time of the last change that the record notes."""
        return max(self.numbers[name] for name in ("admitted", "started", "decided", "ended"))


def server_now_us(client: redis.Redis) -> int:
    """Redis's time."""
    return redis_time_us(client.time())


def scan_records(client: redis.Redis, keys: Keys, budget: Budget) -> Iterator[list[Seen]]:
    """Yield every record in batches.

    A record that is written meanwhile may be missed or come twice. The scan ends early when the
    budget is spent.
    """
    prefix = keys.record("")
    pending: list[str] = []
    for key in client.scan_iter(f"{prefix}*", count=BATCH, _type="HASH"):
        pending.append(_text(key)[len(prefix) :])
        if len(pending) >= BATCH:
            if not budget.ask():
                return
            yield read_records(client, keys, pending)
            pending = []
    if pending:
        yield read_records(client, keys, pending)


def read_records(client: redis.Redis, keys: Keys, job_ids: Sequence[str]) -> list[Seen]:
    """Return the records of these jobs, in their order; state `none` if there is no record."""
    with client.pipeline(transaction=False) as pipe:
        for job_id in job_ids:
            pipe.hmget(keys.record(job_id), _FIELDS)
        rows = pipe.execute()
    return [_seen(job_id, row) for job_id, row in zip(job_ids, rows, strict=True)]


def _seen(job_id: str, row: Sequence[Any]) -> Seen:
    values = dict(zip(_FIELDS, row, strict=True))
    texts = {name: _text(values[name]) for name in _TEXTS}
    return Seen(
        job_id,
        State(texts["state"] or "none"),
        {name: int(values[name] or 0) for name in _NUMBERS},
        texts,
    )


def _text(raw: bytes | str | None) -> str:
    if raw is None:
        return ""
    return raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
