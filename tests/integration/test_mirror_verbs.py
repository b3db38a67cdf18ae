"""Verbs in the lifecycle stream: essential if somebody signed them, and stored once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Connection, Engine, select
from sqlalchemy.event import listen, remove

from support.signing import Keeper
from taskyard.access import Action
from taskyard.access.broadcast_calls import WHOAMI, call_of_broadcast
from taskyard.access.credential import sign
from taskyard.access.key_ring import KeyRing
from taskyard.access.verify_credential import LONGEST_CREDENTIAL, Verifier
from taskyard.audit import list_unverified
from taskyard.clock import SYSTEM_CLOCK, SystemClock, to_us
from taskyard.database.tables import AUDIT, REJECTS, UNVERIFIED
from taskyard.engine.signed_broadcasts import Broadcasts
from taskyard.mirror import worker_verbs
from taskyard.mirror.batch_feeds import EventFeed
from taskyard.mirror.lifecycle_stream import LifecycleStream, StreamEntry
from taskyard.mirror.worker_verbs import is_verb, store_verbs
from taskyard.records.verb_events import VerbEvent, VerbEvents, announced
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

    def signed(self, ago: timedelta = timedelta(0), workers: Iterable[str] = ()) -> str:
        return sign(
            self.keeper.key,
            self.keeper.identity,
            call_of_broadcast(self.settings.namespace, WHOAMI, workers),
            now=datetime.now(UTC) - ago,
            life=timedelta(minutes=10),
        )

    def event(self, credential: str, code: str = "") -> VerbEvent:
        return VerbEvent(Action.WHOAMI, WORKER, to_us(datetime.now(UTC)), code, credential)

    def entries(self) -> list[StreamEntry]:
        return [StreamEntry(key.decode(), fields) for key, fields in self.client.xrange(self.key)]

    def store(self, connection: Connection) -> None:
        """Store the stream's entries as a mirror does."""
        entries = self.entries()
        names = {entry.fields.get(b"worker", b"") for entry in entries}
        workers = announced(self.client, self.settings.namespace, names)
        store_verbs(connection, entries, self.verifier, workers)

    def stored(self) -> None:
        """Store and commit."""
        with self.database.begin() as connection:
            self.store(connection)

    def append(self, credential: str, at: datetime, worker: str = WORKER, key: str = "*") -> None:
        """Append an entry as any program can that enqueues."""
        fields = VerbEvent(Action.WHOAMI, worker, to_us(at), "", credential).fields()
        self.client.xadd(self.key, fields, id=key)

    def announce(self, *workers: str) -> None:
        self.client.zadd(f"{self.settings.namespace}:workers:announced", dict.fromkeys(workers, 1))

    def counts(self) -> dict[str, int]:
        return {row["why"]: row["count"] for row in list_unverified(self.database, None, 10)}

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
    made.client.delete(made.key, f"{settings.namespace}:workers:announced")
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
            stage.store(connection)
    assert stage.rows(credential) == [("anna@example.com", "applied")]


def test_a_denial_of_a_verified_caller_is_a_row_of_its_own(stage: Stage) -> None:
    credential = stage.signed()
    VerbEvents(stage.client, stage.settings.namespace, 100).append(
        stage.event(credential, "not_permitted"), essential=True
    )
    with stage.database.begin() as connection:
        stage.store(connection)
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


def test_a_denial_brings_its_cause_and_none_of_the_senders_text(stage: Stage) -> None:
    events = VerbEvents(stage.client, stage.settings.namespace, 100)
    broadcasts = Broadcasts(stage.verifier, events)
    for text in ("x" * 60_000, "", None, stage.signed(timedelta(minutes=16))):
        broadcasts.whoami(WORKER, text)
    assert all(len(str(entry.fields)) < 250 for entry in stage.entries())
    stage.client.xadd(stage.key, stage.event("", "any-text").fields())
    stage.stored()
    assert stage.counts() == {"malformed": 2, "unsigned": 2, "expired": 1}


def test_a_broadcast_that_was_seen_days_ago_writes_no_row(stage: Stage) -> None:
    stage.announce(WORKER)
    credential, days = stage.signed(timedelta(days=3)), timedelta(days=3)
    now = datetime.now(UTC)
    for at in (now - days + timedelta(minutes=1), now, now - timedelta(minutes=4)):
        stage.append(credential, at)
    stage.stored()
    assert stage.rows(credential) == []
    assert stage.counts() == {"wrong_time": 1, "expired": 2}


def test_an_entry_of_the_future_or_with_an_impossible_id_stops_no_mirror(stage: Stage) -> None:
    stage.announce(WORKER)
    credential, later = stage.signed(), datetime.now(UTC) + timedelta(days=1)
    stage.append(credential, later, key=f"{to_us(later) // 1000}-1")
    stage.append(credential, later, key=f"{2**64 - 1}-1")
    stage.stored()
    assert stage.rows(credential) == []
    assert stage.counts() == {"wrong_time": 1, "malformed": 1}


def test_a_key_that_is_retired_by_now_writes_no_row(stage: Stage) -> None:
    stage.announce(WORKER)
    credential, now = stage.signed(), datetime.now(UTC)
    stage.append(credential, now - timedelta(minutes=1))
    ended = stage.keeper.public.model_copy(update={"not_after": now})
    stage.keeper.ring.write_text(KeyRing({ended.key_id: ended}).render())
    stage.verifier = Verifier(stage.settings)
    stage.stored()
    assert stage.counts() == {"retired_key": 1}


def test_one_credential_writes_no_row_for_a_name_that_no_worker_announced(stage: Stage) -> None:
    credential = stage.signed()
    for number in range(20):
        stage.append(credential, datetime.now(UTC), f"no-such-{number}@host")
    stage.stored()
    assert stage.rows(credential) == []
    assert stage.counts() == {"unknown_worker": 20}


def test_one_credential_writes_a_limited_number_of_rows(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_verbs, "MOST_ROWS_OF_A_NONCE", 3)
    credential, other = stage.signed(), stage.signed()
    names = [f"exec{number}@host" for number in range(5)]
    stage.announce(*names)
    for name in names:
        stage.append(credential, datetime.now(UTC), name)
    for _ in range(2):
        stage.stored()
    assert len(stage.rows(credential)) == 3
    stage.append(other, datetime.now(UTC), names[0])
    stage.stored()
    assert len(stage.rows(other)) == 1


def test_the_longest_credential_that_a_worker_takes_is_audited(stage: Stage) -> None:
    names = [f"exec.{number}@node-{number:04}.example.com" for number in range(1200)]
    credential = stage.signed(workers=[WORKER, *names])
    assert 45_000 < len(credential) <= LONGEST_CREDENTIAL
    events = VerbEvents(stage.client, stage.settings.namespace, 100)
    assert "subject" in Broadcasts(stage.verifier, events).whoami(WORKER, credential)
    stage.stored()
    assert stage.counts() == {}
    with stage.database.connect() as connection:
        call = call_of_broadcast(stage.settings.namespace, WHOAMI, [WORKER, *names])
        nonce = stage.verifier.authenticate(credential, call).claims.nonce
        query = select(AUDIT.c.outcome).where(AUDIT.c.detail["nonce"].astext == nonce)
        assert connection.execute(query).scalars().all() == ["applied"]


@pytest.mark.parametrize("worker", ["w" * 256, "a\u202eb@host", ""])
def test_what_the_mirror_would_not_store_is_not_carried_out(stage: Stage, worker: str) -> None:
    events = VerbEvents(stage.client, stage.settings.namespace, 100)
    answer = Broadcasts(stage.verifier, events).whoami(worker, stage.signed())
    assert answer["denied"] == "not_audited"
    assert stage.entries() == []


def test_a_worker_whose_clock_differs_from_that_of_redis_does_not_carry_out_the_verb(
    stage: Stage,
) -> None:
    events = VerbEvents(stage.client, stage.settings.namespace, 100)
    verifier = Verifier(stage.settings, _SlowClock())
    credential = stage.signed(timedelta(minutes=6))
    answer = Broadcasts(verifier, events).whoami(WORKER, credential)
    assert answer["denied"] == "not_audited"
    assert "clocks" in answer["why"]
    stage.stored()
    assert stage.rows(credential) == []


class _SlowClock(SystemClock):
    """Six minutes behind."""

    def now(self) -> datetime:
        return super().now() - timedelta(minutes=6)


def test_a_flood_of_denials_is_counted_by_few_statements(stage: Stage) -> None:
    now = datetime.now(UTC)
    for number in range(500):
        stage.append("x" * (number % 2), now - timedelta(minutes=number), worker=f"w{number}")
    statements: list[str] = []

    def note(*given: Any) -> None:
        statements.append(given[2])

    listen(stage.database, "before_cursor_execute", note)
    stage.stored()
    remove(stage.database, "before_cursor_execute", note)
    assert sum(stage.counts().values()) == 500
    assert len([one for one in statements if "unverified_denials" in one]) <= 2 * 62
