"""Jobs under ids that Postgres cannot hold: the reconciler goes on looking."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from sqlalchemy import Engine

from servers import Servers
from support.databases import database_in, migrate_as_before
from support.yard import fresh_settings
from taskyard.broker import RedisPublisher
from taskyard.database import migrate, opened
from taskyard.jobs.states import State
from taskyard.reconcile import Kind, Reconciler
from taskyard.records import Records

AGO_US = 3_600_000_000


@pytest.fixture(params=["UTF8", "LATIN1", "SQL_ASCII"])
def database(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Engine]:
    encoding = request.param
    url = database_in(servers, encoding)
    (migrate if encoding == "UTF8" else migrate_as_before)(url)
    with opened(url) as made:
        yield made


def test_ids_that_postgres_cannot_hold_stop_no_look(servers: Servers, database: Engine) -> None:
    settings = fresh_settings(servers.valkey_url())
    client = redis.Redis.from_url(settings.need_redis_url())
    records = Records(client, settings)
    reconciler = Reconciler(settings, database, records, RedisPublisher(settings, client))
    for job in ("a\x00b", "job-\u20ac", "sound"):
        records.admit(job, job_type="t\x00\u20ac", queue="plan\x00", priority=3, unique_for_s=0)
        key = records.keys.record(job)
        client.hset(key, "admitted", int(client.hget(key, "admitted") or 0) - AGO_US)
    client.delete(records.keys.lifecycle)
    for _ in range(2):
        report = reconciler.run(repair=True)
        assert report.complete
        assert report.looked_at["records"] == 3
    assert records.read("sound").state is State.ACCEPTED
    assert Kind.LEDGER_BEHIND in report.drift
