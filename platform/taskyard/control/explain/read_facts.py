"""Ask each server for what it knows of a job, each by itself and for a bounded time.

At most a few seconds in all, also where a server accepts connections and does not answer; and
within that at most `SEARCH_S` of searching at a Redis broker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Final

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine

from taskyard import database
from taskyard.access import Identity
from taskyard.control.explain.cause_kinds import Server
from taskyard.control.explain.job_facts import Facts, FromBroker, FromPostgres, FromRecords
from taskyard.control.explain.read_broker import read_broker
from taskyard.control.explain.read_postgres import read_postgres, why_closed
from taskyard.control.explain.read_records import read_records
from taskyard.errors import TaskyardError
from taskyard.jobs.states import State
from taskyard.records import Records
from taskyard.settings import Settings
from taskyard.store import connect, explained

__all__ = ["ANSWER_S", "read_facts"]

ANSWER_S: Final = 2.0
"""How long each answer of a Redis may take; a person waits."""


def read_facts(
    settings: Settings, job_id: str, *, engine: Engine | None, reader: Identity | None
) -> Facts:
    """Return what the servers say now; `outages` names those that did not answer.

    Without an `engine` a connection of its own is made to TASKYARD_DATABASE_URL.
    """
    outages: dict[Server, str] = {}
    records: FromRecords | None = None
    broker: FromBroker | None = None
    postgres: FromPostgres | None = None
    with closing(_client(settings)) as client:
        own = Records(client, settings)
        with _asked(Server.RECORDS, settings, outages):
            records = read_records(settings, own, job_id)
        with _asked(Server.POSTGRES, settings, outages), _engine(settings, engine) as opened:
            postgres = read_postgres(opened, job_id, records, reader)
        if not outages:
            with _asked(Server.POSTGRES, settings, outages), _engine(settings, engine) as opened:
                postgres = replace(postgres, gate=why_closed(opened, own))
        with _asked(Server.BROKER, settings, outages):
            queues = _queue(records, postgres), _old_queue(postgres)
            broker = read_broker(settings, own, job_id, records, *queues)
    return Facts(settings, job_id, outages, reader, records, broker, postgres)


def _client(settings: Settings) -> Redis:
    return connect(settings.need_redis_url(), retries=0, timeout_s=ANSWER_S)


def _queue(records: FromRecords | None, postgres: FromPostgres | None) -> str:
    if records is not None and records.record.state is not State.NONE:
        return records.next_queue or records.record.queue
    row: Mapping[str, object] = (postgres.row if postgres is not None else None) or {}
    return str(row.get("queue") or "")


def _old_queue(postgres: FromPostgres | None) -> str:
    return "" if postgres is None else postgres.old_queue


@contextmanager
def _engine(settings: Settings, engine: Engine | None) -> Iterator[Engine]:
    if engine is not None:
        yield engine
        return
    url = settings.need_database_url()
    with database.opened(url, application_name="taskyard explain") as opened:
        yield opened


@contextmanager
def _asked(server: Server, settings: Settings, outages: dict[Server, str]) -> Iterator[None]:
    """Note why a server did not answer; any other error is raised.

    The broker's errors are Taskyard's already, so an error of redis-py is the records'.
    """
    try:
        yield
    except TaskyardError as error:
        outages[server] = str(error)
    except RedisError as error:
        outages[Server.RECORDS] = str(explained(error, settings.need_redis_url()))
