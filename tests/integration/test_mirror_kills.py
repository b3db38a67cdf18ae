"""A mirror that is killed again and again while letters and events come in."""

from __future__ import annotations

import subprocess
import sys

import pytest
import redis
from sqlalchemy import Engine, func, select

from support.letters import make_letter
from support.waiting import eventually
from taskyard.broker import connection as broker_connection
from taskyard.clock import SYSTEM_CLOCK
from taskyard.database.tables import EVENTS, LETTERS
from taskyard.deadletters import LetterBox, mirror_queue
from taskyard.mirror.batch_feeds import EventFeed, LetterFeed
from taskyard.mirror.kombu_letters import KombuLetters
from taskyard.mirror.lifecycle_stream import LifecycleStream
from taskyard.records import Records
from taskyard.settings import Settings

pytestmark = pytest.mark.slow

COUNT = 600
KILLS = 4
# Small batches and a word after each, so that a kill falls into the middle of the work.
MIRROR = """
import sys, redis
from taskyard.broker import connection
from taskyard.clock import SYSTEM_CLOCK
from taskyard.database import engine
from taskyard.deadletters import mirror_queue
from taskyard.mirror.batch_feeds import EventFeed, LetterFeed
from taskyard.mirror.kombu_letters import KombuLetters
from taskyard.mirror.lifecycle_stream import LifecycleStream
from taskyard.settings import Settings
settings = Settings.model_validate_json(sys.argv[1])
database = engine(sys.argv[2])
client = redis.Redis.from_url(settings.need_redis_url())
source = KombuLetters(connection(settings), mirror_queue(settings), prefetch=50)
letters = LetterFeed(database, source, batch=20)
stream = LifecycleStream(client, settings.namespace, "killed")
events = EventFeed(database, stream, SYSTEM_CLOCK, 20)
while True:
    print(letters.step(0.1) + events.step(0.0), flush=True)
"""


def count(database: Engine, table: object) -> int:
    with database.connect() as connection:
        return int(connection.scalar(select(func.count()).select_from(table)) or 0)  # type: ignore[arg-type] # one of our tables


def kill_in_the_middle(settings: Settings, url: str) -> None:
    argv = [sys.executable, "-c", MIRROR, settings.model_dump_json(), url]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline().strip().isdigit()
        process.kill()


def test_kills_lose_nothing_and_double_nothing(
    database: Engine, database_url: str, settings: Settings
) -> None:
    client = redis.Redis.from_url(settings.need_redis_url())
    records, box = Records(client, settings), LetterBox(settings)
    for number in range(COUNT):
        box.post(make_letter(f"job-{number}"))
        records.admit(f"job-{number}", job_type="t", queue="plan", priority=3, unique_for_s=0)
    for _ in range(KILLS):
        kill_in_the_middle(settings, database_url)
    assert count(database, LETTERS) < COUNT

    source = KombuLetters(broker_connection(settings), mirror_queue(settings), prefetch=500)
    letters = LetterFeed(database, source)
    stream = LifecycleStream(client, settings.namespace, "next", claim_idle_ms=0)
    events = EventFeed(database, stream, SYSTEM_CLOCK)

    def settled() -> bool:
        letters.step(0.2)
        events.step(0)
        unacked = client.hlen(f"{settings.namespace}:unacked")
        return count(database, LETTERS) == COUNT and not unacked and not client.xlen(stream_key)

    stream_key = f"{settings.namespace}:lifecycle"
    eventually(settled, "every letter and event, and nothing left behind")
    assert count(database, EVENTS) == COUNT
    source.close()
    box.close()
    client.close()
