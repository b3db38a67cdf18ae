"""What the sealer of the audit log costs operators: verbs a second with it beside them and without.

A verb is a replay, up to its commit: the letter's row locked, audit row and intent written. The
sealer runs in a process of its own, as in the relay, at its own interval.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine, select, text

from bench.deadline import Deadline
from bench.interleaved import interleaved
from bench.spread import Spread, ratios, spread
from taskyard.access import Identity, Role
from taskyard.audit import Sealer
from taskyard.clock import to_us
from taskyard.control import replay
from taskyard.database import create_partitions, migrate, opened
from taskyard.database.tables import LETTERS
from taskyard.wire.letter_categories import Category

__all__ = ["SealingCost", "sealing_cost"]

_CALLERS: Final = 4
_LETTERS: Final = 8_000
_WHY: Final = "A measurement of the sealer beside operators' verbs"
_BENCH: Final = Identity("bench", via="bench", role=Role.ADMIN)
_STORE: Final = text(
    """
    INSERT INTO dead_letter_queue (id, decided_at, original_request_id, epoch, generation, job_type,
        queue, failure_category, failure_reason, body, headers, properties, content_type,
        content_encoding, replay_eligible)
    SELECT gen_random_uuid(), now(), 'job-' || n, :epoch, 0, 'noop', 'exec', :category, 'no cause',
        '[[], {}, {}]', '{}', '{}', 'application/json', 'utf-8', true
    FROM generate_series(1, :count) AS n
    """
)


@dataclass(frozen=True)
class _Side:
    """One of the two that are compared."""

    name: str
    sealed: bool


@dataclass(frozen=True)
class SealingCost:
    """Verbs a second (medians), the ratio turn by turn, and how many rows were sealed meanwhile."""

    with_sealer_per_s: float
    without_per_s: float
    ratio: Spread
    rows_sealed: int
    seals: int


def sealing_cost(database_url: str, turns: int, turn_s: float, deadline: Deadline) -> SealingCost:
    """Replay letters for `turn_s` seconds a turn, with and without a sealer, in turns."""
    migrate(database_url)
    sides = (_Side("with", sealed=True), _Side("without", sealed=False))
    with opened(database_url, application_name="bench") as engine:
        letters = _store(engine)
        before = _sealed(engine)

        def measure(side: _Side) -> float:
            _reopen(engine)
            with _sealer(database_url if side.sealed else None):
                return _verbs_per_s(engine, letters, turn_s)

        found = interleaved(sides, turns, deadline, measure)
        after = _sealed(engine)
    ratio = spread(ratios(found["with"], found["without"]))
    return SealingCost(
        with_sealer_per_s=spread(found["with"]).median,
        without_per_s=spread(found["without"]).median,
        ratio=ratio,
        rows_sealed=after[0] - before[0],
        seals=after[1] - before[1],
    )


def _store(engine: Engine) -> list[uuid.UUID]:
    with engine.begin() as connection:
        now = connection.execute(text("SELECT now()")).scalar_one()
        create_partitions(connection, now)
        values = {"epoch": to_us(now), "category": Category.RETRY_EXHAUSTED, "count": _LETTERS}
        connection.execute(text("TRUNCATE dead_letter_queue"))
        connection.execute(_STORE, values)
        return list(connection.scalars(select(LETTERS.c.id)))


def _reopen(engine: Engine) -> None:
    """Every letter as it was stored; what the turn before left does not slow down the next."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE dead_letter_queue SET status = 'pending'"))
        connection.execute(text("TRUNCATE outbox"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE dead_letter_queue"))


def _verbs_per_s(engine: Engine, letters: Sequence[uuid.UUID], turn_s: float) -> float:
    """How many replays a second several callers finish; raises where letters run out."""
    start = time.monotonic()
    with ThreadPoolExecutor(_CALLERS) as pool:
        shares = [letters[number::_CALLERS] for number in range(_CALLERS)]
        counts = list(pool.map(lambda share: _replay(engine, share, start + turn_s), shares))
    return sum(counts) / (time.monotonic() - start)


def _replay(engine: Engine, letters: Sequence[uuid.UUID], until: float) -> int:
    for count, letter in enumerate(letters):
        if time.monotonic() >= until:
            return count
        replay(engine, letter, identity=_BENCH, reason=_WHY)
    raise RuntimeError(f"{len(letters)} letters were too few for a turn; shorten it")


@contextmanager
def _sealer(database_url: str | None) -> Iterator[None]:
    """A sealer that has begun beside the block; None is none."""
    if database_url is None:
        yield
        return
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_seal, args=(database_url, ready), daemon=True)
    process.start()
    try:
        if not ready.wait(60):
            raise TimeoutError("the sealer has not begun after 60 s")
        yield
    finally:
        process.terminate()
        process.join(30)


def _seal(database_url: str, ready: threading.Event) -> None:
    with opened(database_url, application_name="bench sealer") as engine:
        sealer = Sealer(engine, lambda _: None)
        sealer.run_once()
        ready.set()
        sealer.run(threading.Event())


def _sealed(engine: Engine) -> tuple[int, int]:
    query = text("SELECT coalesce(sum(cardinality(row_ids)), 0), count(*) FROM audit_seals")
    with engine.connect() as connection:
        rows, seals = connection.execute(query).one()
        return int(rows), int(seals)
