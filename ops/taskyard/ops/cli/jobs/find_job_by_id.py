"""Find a job by its id or by the first characters of its id."""

from __future__ import annotations

import re
from typing import Final

from taskyard import database, ledger
from taskyard.access import Identity
from taskyard.control import reader_of
from taskyard.errors import NotFound, Refused, TaskyardError
from taskyard.install.announced_queues import AnnouncedQueues
from taskyard.jobs.states import State
from taskyard.ops.cli.jobs.ledger_outage import LEDGER_OUTAGE
from taskyard.records import Record, Records
from taskyard.settings import Settings
from taskyard.store import reachable

__all__ = ["MINIMUM_PREFIX", "find_in_ledger", "find_job", "no_job"]

MINIMUM_PREFIX: Final = 6
_SHOWN: Final = 5
# The form of the ids that Celery makes.
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PAGE: Final = 5_000
_GLOB: Final = re.compile(r"([*?\[\]\\^])")


def find_job(settings: Settings, records: Records, name: str) -> str:
    """Return the one job id that is, or begins with, `name`.

    A whole id is searched in the records. The first characters of an id are searched in the ledger,
    or in the records if the ledger finds no job (the mirror may be late, Postgres unreachable). A
    job outside the bounds of `TASKYARD_TOKEN` is not found. Raises `NotFound` if neither finds a
    job, `TokenRefused`, the ledger's error if it did not answer and the records find no job, or
    `Refused` with the candidates.
    """
    reader = _reader(settings)
    with reachable(settings.need_redis_url()):
        record = records.read(name)
    if record.state is not State.NONE:
        if not _is_visible(settings, record, reader):
            raise no_job(settings, records, name)
        return name
    _check_length(name)
    found, outage = _in_ledger(settings, name, reader)
    found = found or _in_records(settings, records, name, reader)
    if not found:
        if outage is not None:
            raise outage
        raise no_job(settings, records, name)
    return _only(name, found)


def no_job(settings: Settings, records: Records, name: str) -> NotFound:
    """Return the error for a job without a record.

    A task of an installed app may still be queued.
    """
    text = f"there is no job {name[:60]!r}. "
    with reachable(settings.need_redis_url()):
        queues = sorted(
            {place.queue for place in AnnouncedQueues(records.client, settings.namespace).all()}
        )
    if queues or _UUID.fullmatch(name):
        some = ", ".join(queues[:_SHOWN]) + (", ..." if len(queues) > _SHOWN else "")
        text += (
            "Without install(app, admit=True) a task of an installed Celery app has no record "
            "before a worker begins it: it may still wait in a queue of the app "
            f"({some or 'no worker of it has run yet'}), which `taskyard queues list` counts once "
            "a worker of the app has run. "
        )
    return NotFound(f"{text}See: taskyard jobs list")


def find_in_ledger(settings: Settings, name: str) -> str | None:
    """Search the ledger as `find_job` does; return None if the ledger does not find the job.

    The caller uses this function when the records do not answer. Then it is unknown whether the job
    exists, so the only errors are `Refused`, and `NotFound` for a name that is too short.
    """
    _check_length(name)
    found, _ = _in_ledger(settings, name, _reader(settings))
    return _only(name, found) if found else None


def _reader(settings: Settings) -> Identity | None:
    """Return the bearer of `TASKYARD_TOKEN`, which Postgres verifies; None without a token."""
    if settings.token is None:
        return None
    with database.opened(settings.need_database_url()) as engine:
        return reader_of(engine, settings)


def _is_visible(settings: Settings, record: Record, reader: Identity | None) -> bool:
    """Return whether the job is within the reader's bounds; the record of an ended one is short."""
    if reader is None or reader.sees(record.queue, record.fields.get("domain")):
        return True
    if record.queue:
        return False
    found, outage = _in_ledger(settings, record.job_id, reader)
    if outage is not None:
        raise outage
    return record.job_id in found


def _check_length(name: str) -> None:
    if len(name) < MINIMUM_PREFIX:
        raise NotFound(
            f"{name!r} is not a job's id: expected the whole id or at least {MINIMUM_PREFIX} of "
            "its first characters. See: taskyard jobs list"
        )


def _only(name: str, found: list[str]) -> str:
    if name in found:
        return name
    if len(found) > 1:
        more = " and more" if len(found) > _SHOWN else ""
        some = ", ".join(found[:_SHOWN])
        raise Refused(f"{name!r} is ambiguous: {some}{more}. Give more characters.")
    return found[0]


def _in_ledger(
    settings: Settings, prefix: str, reader: Identity | None
) -> tuple[list[str], TaskyardError | None]:
    """Return the ledger's ids, or why it did not answer: an outage is not an empty answer."""
    try:
        with (
            database.opened(settings.need_database_url()) as engine,
            engine.connect() as connection,
        ):
            limit = _SHOWN + 1
            return ledger.ids_starting_with(connection, prefix, limit, identity=reader), None
    except LEDGER_OUTAGE as error:
        return [], error


def _in_records(
    settings: Settings, records: Records, prefix: str, reader: Identity | None
) -> list[str]:
    """Search all record keys: slow if there are millions, but it needs no other server."""
    own = records.keys.record("")
    pattern = own + _GLOB.sub(r"\\\1", prefix) + "*"
    found: list[str] = []
    with reachable(settings.need_redis_url()):
        for key in records.client.scan_iter(match=pattern, count=_PAGE, _type="hash"):
            job_id = key.decode().removeprefix(own)
            if not _is_visible(settings, records.read(job_id), reader):
                continue
            found.append(job_id)
            if len(found) > _SHOWN:
                break
    return sorted(set(found))
