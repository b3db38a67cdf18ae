"""Create the partitions of the next weeks in time, and drop old ones."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Engine, func, select

from taskyard.clock import Clock
from taskyard.database import create_partitions, drop_partitions_before
from taskyard.database.partitions import AgedOut
from taskyard.settings import Settings
from taskyard.wire.redacted_logs import logger

__all__ = ["EVERY_S", "keep_partitions"]

log = logger(__name__)

EVERY_S: Final = 3600.0
# Machines with synchronized clocks differ by less than a second; a wrong clock that is ahead would
# drop everything.
_CLOCKS_MAY_DIFFER_S: Final = 3600.0


def keep_partitions(engine: Engine, settings: Settings, clock: Clock) -> None:
    """Create the partitions of the next weeks, and drop those past retention.

    While this machine's clock and Postgres' clock differ by over an hour, no partition is dropped.
    """
    with engine.begin() as connection:
        own, theirs = clock.now(), connection.execute(select(func.now())).scalar_one()
        now = min(own, theirs)
        for name in create_partitions(connection, now):
            log.info(
                "created partition %s",
                name,
                extra={"action": "partition_created", "partition": name},
            )
    if abs((own - theirs).total_seconds()) > _CLOCKS_MAY_DIFFER_S:
        _log_clocks(own, theirs)
        return
    days = {
        "dead_letter_queue": settings.letter_retention_days,
        "job_ledger": settings.ledger_retention_days,
        "job_events": settings.ledger_retention_days,
    }
    for table, kept in days.items():
        with engine.begin() as connection:
            aged = drop_partitions_before(connection, table, now - timedelta(days=kept))
        _log_aged_out(table, kept, aged)


def _log_clocks(own: datetime, theirs: datetime) -> None:
    log.error(
        "old partitions are not dropped now, because the clocks differ by more than an hour: this "
        "machine's clock says %s, that of Postgres says %s. Correct the wrong clock, for instance "
        "with NTP. The mirror tries again in an hour, and when it starts",
        own.isoformat(timespec="seconds"),
        theirs.isoformat(timespec="seconds"),
        extra={"action": "upkeep_clocks_differ", "apart_s": (own - theirs).total_seconds()},
    )


def _log_aged_out(table: str, days: int, aged: AgedOut) -> None:
    for name in aged.weeks:
        log.warning(
            "dropped partition %s, older than %d days",
            name,
            days,
            extra={"action": "partition_dropped", "partition": name},
        )
    if aged.rows or aged.kept:
        log.warning(
            "%s: deleted %d rows older than %d days, and kept %d younger rows of the same weeks",
            table,
            aged.rows,
            days,
            aged.kept,
            extra={"action": "rows_aged_out", "rows": aged.rows, "kept": aged.kept},
        )
    if aged.open_letters:
        log.warning(
            "deleted %d dead letters that still waited for an operator: they were not replayed "
            "within %d days. Handle dead letters sooner, or raise TASKYARD_LETTER_RETENTION_DAYS",
            aged.open_letters,
            days,
            extra={"action": "open_letters_aged_out", "letters": aged.open_letters},
        )
