"""Verbs in the lifecycle stream: essential if somebody signed them, and stored once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine, select

from support.signing import Keeper
from taskyard.access import Action
from taskyard.access.broadcast_calls import WHOAMI, call_of_broadcast
from taskyard.access.credential import sign
from taskyard.access.verify_credential import Verifier
from taskyard.audit import list_unverified
from taskyard.clock import SYSTEM_CLOCK, to_us
from taskyard.database.tables import AUDIT, REJECTS, UNVERIFIED
from taskyard.mirror.batch_feeds import EventFeed
from taskyard.mirror.lifecycle_stream import LifecycleStream, StreamEntry
from taskyard.mirror.worker_verbs import is_verb, store_verbs
from taskyard.records.verb_events import VerbEvent, VerbEvents
from taskyard.settings import Settings

WORKER = "exec@host"


class Stage:
    """A stream, a key, and the mirror's end."""

    def __init__(self, settings: Settings, database: Engine, folder: Path) -> None:
        self.keeper = Keeper(folder)
        self.settings = settings.model_copy(update={"public_keys": self.keeper.ring})
        self.database = database
        self.client = redis.Redis.from_url(settings.need_redis_url())
        self.key = f"{settings.namespace}:lifecycle"
        self.verifier = Verifier(self.settings)

    def signed(self) -> str:
        return sign(
            self.keeper.key,
            self.keeper.identity,
            call_of_broadcast(self.settings.namespace, WHOAMI),
            now=datetime.now(UTC),
            life=timedelta(minutes=10),
        )

    def event(self, credential: str, code: str = "") -> VerbEvent:
        return VerbEvent(Action.WHOAMI, WORKER, to_us(datetime.now(UTC)), code, credential)

    def entries(self) -> list[StreamEntry]:
        return [StreamEntry(key.decode(), fields) for key, fields in self.client.xrange(self.key)]

    def rows(self, nonce_of: str) -> list[tuple[str, str]]:
        """Subject and outcome of the rows of one credential."""
        verified = self.verifier.authenticate(
            nonce_of, call_of_broadcast(self.settings.namespace, WHOAMI)
        )
        query = select(AUDIT.c.operator_identity, AUDIT.c.outcome).where(
            AUDIT.c.detail["nonce"].astext == verified.claims.nonce
        )
        with self.database.connect() as connection:
            return [(subject, outcome) for subject, outcome in connection.execute(query)]


@pytest.fixture
def stage(settings: Settings, database: Engine, tmp_path: Path) -> Iterator[Stage]:
    with database.begin() as connection:
        connection.execute(UNVERIFIED.delete())
    made = Stage(settings, database, tmp_path / "keys")
    yield made
    made.client.delete(made.key)
    made.client.close()


def test_a_full_stream_takes_what_somebody_signed_and_counts_what_nobody_signed(
    stage: Stage,
) -> None:
    events = VerbEvents(stage.client, stage.settings.namespace, 10)
    for _ in range(8):
        events.append(stage.event("", "unsigned"), essential=False)
    assert len(stage.entries()) == 6
    gaps = stage.client.hgetall(f"{stage.settings.namespace}:lifecycle:gaps")
    assert gaps == {b"denied_verb": b"2"}
    events.append(stage.event(stage.signed()), essential=True)
    assert len(stage.entries()) == 7


def test_what_is_stored_again_is_one_row(stage: Stage) -> None:
    credential = stage.signed()
    VerbEvents(stage.client, stage.settings.namespace, 100).append(
        stage.event(credential), essential=True
    )
    for _ in range(3):
        with stage.database.begin() as connection:
            store_verbs(connection, stage.entries(), stage.verifier)
    assert stage.rows(credential) == [("anna@example.com", "applied")]


def test_a_denial_of_a_verified_caller_is_a_row_of_its_own(stage: Stage) -> None:
    credential = stage.signed()
    VerbEvents(stage.client, stage.settings.namespace, 100).append(
        stage.event(credential, "not_permitted"), essential=True
    )
    with stage.database.begin() as connection:
        store_verbs(connection, stage.entries(), stage.verifier)
    assert stage.rows(credential) == [("anna@example.com", "denied")]


def test_a_mirror_without_a_key_ring_counts_and_stores_no_credential(stage: Stage) -> None:
    credential = stage.signed()
    VerbEvents(stage.client, stage.settings.namespace, 100).append(
        stage.event(credential), essential=True
    )
    assert all(is_verb(entry) for entry in stage.entries())
    stream = LifecycleStream(stage.client, stage.settings.namespace, "one")
    feed = EventFeed(stage.database, stream, SYSTEM_CLOCK)
    # A step that had to create the group may have stored nothing.
    assert feed.step(0) + sum(iter(lambda: feed.step(0), 0)) == 1
    assert stage.rows(credential) == []
    [row] = list_unverified(stage.database, None, 10)
    assert (row["source"], row["why"], row["count"]) == ("broadcast", "unknown_key", 1)
    with stage.database.connect() as connection:
        assert connection.execute(select(REJECTS)).all() == []
