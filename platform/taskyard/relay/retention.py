"""Retention: delete done intents, counts and the old audit log from Postgres when they expire."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, TextClause, func, select, text
from sqlalchemy.exc import DataError

from taskyard.audit import Archiver, archives_in, ended_at
from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.database.outage_retry import repeat
from taskyard.database.postgres_errors import first_line
from taskyard.errors import InvalidPayload
from taskyard.settings import Settings
from taskyard.wire.redacted_logs import logger

__all__ = ["EVERY_S", "Retention"]

log = logger(__name__)

EVERY_S: Final = 3600.0
# As in the mirror: a clock that is ahead would drop what is young.
_CLOCKS_MAY_DIFFER_S: Final = 3600.0
_ROWS_AT_ONCE: Final = 1000
# An intent whose job has not ended since is what `reconcile` finds a lost replay by.
_DONE: Final = text(
    f"""
    DELETE FROM outbox WHERE id IN (
        SELECT done.id FROM outbox AS done
        WHERE done.done_at < now() - make_interval(days => :days) AND NOT EXISTS (
            SELECT FROM dead_letter_queue AS letter
            WHERE letter.id = CAST(done.payload ->> 'letter_id' AS uuid)
                AND letter.status = 'replayed' AND letter.replay_outcome IS NULL)
        ORDER BY done.done_at LIMIT {_ROWS_AT_ONCE})
    """  # noqa: S608 - constant
)
_UNVERIFIED: Final = text(
    f"""
    DELETE FROM unverified_denials WHERE (minute, source, why) IN (
        SELECT minute, source, why FROM unverified_denials
        WHERE minute < now() - make_interval(days => :days) LIMIT {_ROWS_AT_ONCE})
    """  # noqa: S608 - constant
)


class Retention:
    """Deletes and archives what is past retention, every hour; several relays may do so at once."""

    def __init__(self, settings: Settings, engine: Engine, clock: Clock = SYSTEM_CLOCK) -> None:
        self._settings, self._engine, self._clock = settings, engine, clock

    def run(self, stop: threading.Event) -> None:
        """Delete and archive at the start and every hour, until `stop` is set."""

        def step() -> None:
            self.run_once()
            stop.wait(EVERY_S)

        repeat("retention", step, stop)

    def run_once(self) -> None:
        """Delete and archive what has expired; an error of a folder is logged."""
        if not self._clocks_agree():
            return
        settings = self._settings
        self._delete("done intents of the outbox", _DONE, settings.outbox_retention_days)
        self._delete("counts of denials", _UNVERIFIED, settings.unverified_retention_days)
        folder = settings.audit_archive_folder
        if folder is None:
            return
        try:
            if settings.audit_retention_days:
                Archiver(self._engine, folder, settings.audit_retention_days).run_once()
            self._drop_archives(folder, settings.audit_archive_retention_days)
        except (OSError, InvalidPayload) as error:
            _log_failed(error, f"Repair {folder}, the folder in TASKYARD_AUDIT_ARCHIVE_FOLDER")
        except DataError as error:
            _log_failed(first_line(error.orig), "Look at these rows: taskyard audit verify")

    def _clocks_agree(self) -> bool:
        with self._engine.connect() as connection:
            theirs = connection.execute(select(func.now())).scalar_one()
        apart_s = (self._clock.now() - theirs).total_seconds()
        if abs(apart_s) <= _CLOCKS_MAY_DIFFER_S:
            return True
        log.error(
            "nothing is deleted or archived now, because the clocks of this machine and of "
            "Postgres differ by %.0f s, and at most an hour is allowed. Correct the wrong clock, "
            "for instance with NTP. The next try is in an hour",
            apart_s,
            extra={"action": "retention_clocks_differ", "apart_s": apart_s},
        )
        return False

    def _delete(self, what: str, statement: TextClause, days: int) -> None:
        total, deleted = 0, _ROWS_AT_ONCE
        while deleted == _ROWS_AT_ONCE:
            with self._engine.begin() as connection:
                deleted = connection.execute(statement, {"days": days}).rowcount
            total += deleted
        if total:
            log.info(
                "deleted %d %s older than %d days",
                total,
                what,
                days,
                extra={"action": "retention_deleted", "rows": total, "what": what},
            )

    def _drop_archives(self, folder: Path, days: int) -> None:
        if not days or not folder.is_dir():
            return
        oldest = self._clock.now() - timedelta(days=days)
        for path in archives_in(folder):
            if ended_at(path) < oldest:
                path.unlink(missing_ok=True)
                log.warning(
                    "deleted the audit archive %s, older than %d days",
                    path,
                    days,
                    extra={"action": "audit_archive_dropped", "archive": str(path)},
                )


def _log_failed(why: object, remedy: str) -> None:
    log.error(
        "the audit log was not archived: %s. Nothing was removed from Postgres. %s; the next try "
        "is in an hour",
        why,
        remedy,
        extra={"action": "audit_archive_failed"},
    )
