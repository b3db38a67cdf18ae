"""Operators find a letter while it moves into the partition of its week."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from redis import Redis
from sqlalchemy import Engine, text

from servers import Servers
from support.letters import died, make_delivery
from support.waiting import eventually
from support.yard import fresh_settings
from taskyard.access import Identity, Role
from taskyard.control import letters, replay
from taskyard.control.read_payload import read_payload
from taskyard.database import create_partitions
from taskyard.mirror.store_letters import store_letters
from taskyard.records import Records

OPS = Identity("ops@example.com", via="token", role=Role.OPERATOR)
ADMIN = Identity("admin@example.com", via="token", role=Role.ADMIN)
WHY = "Infrastructure recovered after 2-hour outage"


def waiting_for_locks(database: Engine) -> int:
    query = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with database.connect() as connection:
        return int(connection.execute(query).scalar_one())


def test_operators_find_a_letter_that_moves_into_the_partition_of_its_week(
    servers: Servers, empty_database: Engine
) -> None:
    settings = fresh_settings(servers.valkey_url())
    with Redis.from_url(settings.need_redis_url()) as client:
        letter = died(Records(client, settings))
    with empty_database.begin() as connection:
        store_letters(connection, [make_delivery(letter)])
    name = letter.letter_id
    readers = (
        lambda: letters.show(empty_database, name),
        lambda: read_payload(empty_database, name, identity=ADMIN, reason=WHY),
        lambda: replay(empty_database, name, identity=OPS, reason=WHY),
    )
    with ThreadPoolExecutor(len(readers)) as beside:
        with empty_database.begin() as connection:
            assert create_partitions(connection, datetime.now(UTC))
            found = [beside.submit(reader) for reader in readers]
            eventually(
                lambda: waiting_for_locks(empty_database) >= len(readers), "all wait for the move"
            )
        assert all(each.result(20) for each in found)
