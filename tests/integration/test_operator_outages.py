"""An operator's message while Postgres is unreachable: it is retried, with its credential."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Engine, select

from servers import Servers
from support.letters import died, make_delivery
from support.proxy import Proxy, through
from support.signing import WHY, Keeper, send_replay
from support.waiting import SOON_S
from support.worker import HANDLERS, Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.database import create_partitions
from taskyard.database.tables import AUDIT
from taskyard.jobs.states import State
from taskyard.mirror.store_letters import store_letters

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_message_that_meets_an_outage_of_postgres_is_carried_out_after_it(
    servers: Servers, database: Engine, database_url: str, tmp_path: Path, broker: str
) -> None:
    url, at = servers.valkey_url(), urlsplit(database_url)
    keeper = Keeper(tmp_path / "keys")
    with Proxy(str(at.hostname), int(at.port or 0)) as proxy:
        settings = fresh_settings(
            url,
            broker_url=url if broker == "redis" else servers.rabbitmq_url(),
            database_url=through(proxy, database_url),
            public_keys=keeper.ring,
        )
        harness = ServerHarness(settings)
        letter = died(harness.yard.records)
        with database.begin() as connection:
            create_partitions(connection, datetime.now(UTC))
            store_letters(connection, [make_delivery(letter)])
        proxy.die()
        with Worker(settings, tmp_path, queues=("ops",), modules=(HANDLERS,)).start() as worker:
            kwargs = keeper.signed(settings, {"letter_id": letter.letter_id, "reason": WHY})
            job = harness.yard.job(send_replay(harness.yard.app, settings, kwargs))
            harness.await_state(job, State.RETRYING)
            proxy.revive()
            answer = job.result(SOON_S)
            assert answer["letter_id"] == letter.letter_id, worker.log[-3000:]
        query = select(AUDIT.c.outcome).where(AUDIT.c.request_id == uuid.UUID(answer["request_id"]))
        with database.connect() as connection:
            assert list(connection.scalars(query)) == ["requested"]
        assert job.record().number("seq") >= 1
        harness.close()
