"""Partitions: next weeks' are made before they are needed, old ones are dropped."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from sqlalchemy import Engine

from taskyard.clock import Clock
from taskyard.database import create_partitions, drop_partitions_before
from taskyard.settings import Settings
from taskyard.wire.logs import logger

__all__ = ["EVERY_S", "keep_partitions"]

log = logger(__name__)

EVERY_S: Final = 3600.0


def keep_partitions(engine: Engine, settings: Settings, clock: Clock) -> None:
    """Create what the next weeks need and drop what is past its retention."""
    now = clock.now()
    with engine.begin() as connection:
        for name in create_partitions(connection, now):
            log.info("created %s", name, extra={"action": "partition_created", "partition": name})
    days = {
        "dead_letter_queue": settings.letter_retention_days,
        "job_ledger": settings.ledger_retention_days,
        "job_events": settings.ledger_retention_days,
    }
    for table, kept in days.items():
        with engine.begin() as connection:
            cutoff = now - timedelta(days=kept)
            for name in drop_partitions_before(connection, table, cutoff):
                log.warning(
                    "dropped %s, past %d days",
                    name,
                    kept,
                    extra={"action": "partition_dropped", "partition": name},
                )
