"""Verbs in the lifecycle stream: essential if somebody signed them, and stored once."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as search
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, select
from sqlalchemy.event import listen, remove

from support.signing import Keeper
from taskyard.access import RIGHTS, Action, Role
from taskyard.access.actions import Scope
from taskyard.access.broadcast_calls import WHOAMI, call_of_broadcast, request_id_of_command
from taskyard.access.credential import sign
from taskyard.access.key_ring import KeyRing
from taskyard.access.operator_roles import Right
from taskyard.access.verify_credential import LONGEST_CREDENTIAL, Verifier
from taskyard.audit import list_unverified, rows_of
from taskyard.clock import SYSTEM_CLOCK, Clock, SystemClock, to_us
from taskyard.database.tables import AUDIT, REJECTS, UNVERIFIED
from taskyard.engine.count_denied_broadcasts import AT_ONCE, DeniedBroadcasts
from taskyard.engine.signed_broadcasts import Broadcasts
from taskyard.mirror import audit_worker_verbs
from taskyard.mirror.audit_worker_verbs import is_verb, store_verbs
from taskyard.mirror.batch_feeds import EventFeed
from taskyard.mirror.lifecycle_stream import LifecycleStream, StreamEntry
from taskyard.records.command_events import LONGEST_JOBS, CommandEvent
from taskyard.records.denied_broadcast_reports import (
    WINDOW_S,
    DeniedKind,
    DeniedReport,
    DeniedReports,
)
from taskyard.records.verb_events import Bound, VerbEvent, VerbEvents, announced
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

    def done(self, credential: str, code: str = "") -> None:
        """Append the event of a verified caller's verb, as a worker does."""
        events = VerbEvents(self.client, self.settings.namespace)
        expires_at_s = datetime.now(UTC).timestamp() + 600
        events.bind(self.event(credential, code), secrets.token_hex(16), expires_at_s)

    def reports(self, budget: int = 100) -> DeniedReports:
        return DeniedReports(self.client, self.settings.namespace, budget)

    def worker(self, clock: Clock = SYSTEM_CLOCK) -> Broadcasts:
        """The broadcasts of a worker process that has just started."""
        events = VerbEvents(self.client, self.settings.namespace)
        denials = DeniedBroadcasts(self.reports(), clock)
        return Broadcasts(Verifier(self.settings, clock), events, denials)

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
            AUDIT.c.detail["nonce"].astext == verified.nonce
        )
        with self.database.connect() as connection:
            return [(subject, outcome) for subject, outcome in connection.execute(query)]


@pytest.fixture
def stage(settings: Settings, database: Engine, tmp_path: Path) -> Iterator[Stage]:
    with database.begin() as connection:
        connection.execute(UNVERIFIED.delete())
    made = Stage(settings, database, tmp_path / "keys")
    yield made
    made.client.delete(made.key, *made.client.keys(f"{settings.namespace}:*"))
    made.client.close()


def denied(number: str, worker: str = WORKER, count: int = 1, target: str = "") -> DeniedReport:
    kind = DeniedKind(Action.WHOAMI, "unsigned", target)
    return DeniedReport(kind, worker, to_us(datetime.now(UTC)), count, number)


def test_a_full_stream_takes_what_somebody_signed_and_counts_what_nobody_signed(
    stage: Stage,
) -> None:
    reports = stage.reports(budget=10)
    for number in range(8):
        reports.write(denied(f"{number}", count=2))
    assert len(stage.entries()) == 6
    gaps = stage.client.hgetall(f"{stage.settings.namespace}:lifecycle:gaps")
    assert gaps == {b"denied_verb": b"4"}
    stage.done(stage.signed())
    assert len(stage.entries()) == 7


def test_what_is_stored_again_is_one_row(stage: Stage) -> None:
    credential = stage.signed()
    stage.done(credential)
    for _ in range(3):
        with stage.database.begin() as connection:
            stage.store(connection)
    assert stage.rows(credential) == [("anna@example.com", "applied")]


def test_a_denial_of_a_verified_caller_is_a_row_of_its_own(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    credential = stage.signed()
    monkeypatch.setitem(RIGHTS, Action.WHOAMI, Right(Role.ADMIN, Scope.SELF))  # type: ignore[arg-type]
    stage.done(credential, "not_permitted")
    with stage.database.begin() as connection:
        stage.store(connection)
    assert stage.rows(credential) == [("anna@example.com", "denied")]


def test_a_mirror_without_a_key_ring_counts_and_stores_no_credential(stage: Stage) -> None:
    credential = stage.signed()
    stage.done(credential)
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
    broadcasts = stage.worker()
    for text in ("x" * 60_000, "", None, stage.signed(timedelta(minutes=16))):
        broadcasts.whoami(WORKER, text)
    assert all(len(str(entry.fields)) < 270 for entry in stage.entries())
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
    monkeypatch.setattr(audit_worker_verbs, "MOST_ROWS_OF_A_NONCE", 3)
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
    assert "subject" in stage.worker().whoami(WORKER, credential)
    stage.stored()
    assert stage.counts() == {}
    with stage.database.connect() as connection:
        call = call_of_broadcast(stage.settings.namespace, WHOAMI, [WORKER, *names])
        nonce = stage.verifier.authenticate(credential, call).nonce
        query = select(AUDIT.c.outcome).where(AUDIT.c.detail["nonce"].astext == nonce)
        assert connection.execute(query).scalars().all() == ["applied"]


@pytest.mark.parametrize("worker", ["w" * 256, "a\u202eb@host", ""])
def test_what_the_mirror_would_not_store_is_not_carried_out(stage: Stage, worker: str) -> None:
    answer = stage.worker().whoami(worker, stage.signed())
    assert answer["denied"] == "not_audited"
    assert stage.entries() == []


def test_a_worker_whose_clock_differs_from_that_of_redis_does_not_carry_out_the_verb(
    stage: Stage,
) -> None:
    credential = stage.signed(timedelta(minutes=6))
    answer = stage.worker(_SlowClock()).whoami(WORKER, credential)
    assert answer["denied"] == "not_audited"
    assert "clocks" in answer["why"]
    assert stage.entries() == []
    assert "subject" in stage.worker().whoami(WORKER, credential)


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


def test_one_broadcast_is_one_denial_whatever_the_number_of_workers(stage: Stage) -> None:
    workers = [stage.worker() for _ in range(3)]
    for _ in range(4):
        for number, worker in enumerate(workers):
            worker.whoami(f"exec{number}@host", None)
    workers[0].whoami("exec0@host", None, "only the first")
    workers[2].whoami("exec2@host", None, "only the last")
    stage.stored()
    assert stage.counts() == {"unsigned": 6}


def test_a_flood_of_unsigned_broadcasts_fills_neither_redis_nor_postgres(stage: Stage) -> None:
    workers = [stage.worker() for _ in range(3)]
    stage.client.ping()
    before = stage.client.info("memory")["used_memory"]
    for _ in range(10_000):
        for number, worker in enumerate(workers):
            worker.whoami(f"exec{number}@host", "x" * 60_000)
    for worker in workers:
        worker.denied.report(stage.reports())
    assert len(stage.entries()) <= 3 * (AT_ONCE + 1)
    assert stage.client.info("memory")["used_memory"] - before < 100_000
    stage.stored()
    assert stage.counts() == {"malformed": 10_000}


def test_the_counts_of_a_kind_end_so_that_new_workers_are_counted_too(stage: Stage) -> None:
    reports = stage.reports()
    reports.write(denied("a", count=5))
    [key] = stage.client.keys(f"{stage.settings.namespace}:broadcasts:denied:*")
    left_s = stage.client.ttl(key)
    assert 0 < left_s <= WINDOW_S
    # A later report does not lengthen the window.
    stage.client.expire(key, 100)
    reports.write(denied("b", "new@host", count=6))
    assert stage.client.ttl(key) <= 100
    stage.client.delete(key)
    reports.write(denied("c", "new@host"))
    stage.stored()
    assert stage.counts() == {"unsigned": 5 + 1 + 1}


@search(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    written=st.lists(
        st.tuples(
            st.sampled_from(["a@host", "b@host", "c@host 7"]),
            st.sampled_from(["", "one", "other"]),
            st.integers(1, 50),
            st.integers(1, 3),
        ),
        max_size=25,
    )
)
def test_the_stream_has_the_most_that_one_worker_counted_of_each_kind(
    stage: Stage, written: list[tuple[str, str, int, int]]
) -> None:
    stage.client.delete(*stage.client.keys(f"{stage.settings.namespace}:*"), stage.key)
    counts: Counter[tuple[str, str]] = Counter()
    for number, (worker, target, count, times) in enumerate(written):
        counts[target, worker] += count
        for _ in range(times):
            stage.reports(10_000).write(denied(f"p-{number}", worker, count, target))
    most = [
        max(count for (target, _), count in counts.items() if target == one)
        for one in {target for target, _ in counts}
    ]
    appended = [VerbEvent.parse(entry.fields) for entry in stage.entries()]
    assert sum(event.count for event in appended) == sum(most)


def test_a_worker_that_is_started_again_takes_no_copy_of_a_broadcast(stage: Stage) -> None:
    credential = stage.signed()
    answer = stage.worker().whoami(WORKER, credential)
    assert stage.worker().whoami(WORKER, credential) == answer
    assert len(stage.entries()) == 1
    # Each worker has the broadcast as its own.
    assert stage.worker().whoami("other@host", credential)["worker"] == "other@host"
    assert len(stage.entries()) == 2


def test_a_nonce_stays_in_redis_until_no_worker_takes_it_and_no_longer(stage: Stage) -> None:
    stage.worker().whoami(WORKER, stage.signed(timedelta(minutes=2)))
    [key] = stage.client.keys(f"{stage.settings.namespace}:broadcast:*")
    # 8 minutes of the credential, 5 that a worker allows, 5 by which its clock may differ.
    assert 17 * 60 < stage.client.ttl(key) <= 18 * 60


def test_a_denial_of_a_verified_caller_is_answered_alike_after_a_restart(stage: Stage) -> None:
    credential = stage.signed()
    call = call_of_broadcast(stage.settings.namespace, WHOAMI)
    verified = stage.verifier.authenticate(credential, call)
    first = VerbEvents(stage.client, stage.settings.namespace)
    first.bind(stage.event(credential, "not_permitted"), verified.nonce, verified.nonce_expires_at)
    assert stage.worker().whoami(WORKER, credential)["denied"] == "not_permitted"
    assert len(stage.entries()) == 1


def test_what_redis_did_before_its_reply_was_lost_is_this_processs_first_call(
    stage: Stage,
) -> None:
    events, credential = VerbEvents(stage.client, stage.settings.namespace), stage.signed()
    ends_s = datetime.now(UTC).timestamp() + 600
    for _ in range(2):
        assert events.bind(stage.event(credential), "n" * 32, ends_s) == Bound(True, "")
    later = VerbEvents(stage.client, stage.settings.namespace)
    assert later.bind(stage.event(credential), "n" * 32, ends_s) == Bound(False, "")
    assert len(stage.entries()) == 1


def test_a_stream_that_takes_no_entry_binds_no_nonce(stage: Stage) -> None:
    credential = stage.signed()
    stage.client.set(stage.key, "not a stream")
    assert stage.worker().whoami(WORKER, credential)["denied"] == "not_audited"
    stage.client.delete(stage.key)
    assert "subject" in stage.worker().whoami(WORKER, credential)
    assert len(stage.entries()) == 1


def test_an_entry_that_says_that_a_caller_with_the_right_was_denied_is_not_believed(
    stage: Stage,
) -> None:
    credential = stage.signed()
    stage.announce(WORKER)
    stage.client.xadd(stage.key, stage.event(credential, "not_permitted").fields())
    assert "subject" in stage.worker().whoami(WORKER, credential)
    stage.stored()
    assert stage.counts() == {"wrong_outcome": 1}
    assert [outcome for _, outcome in stage.rows(credential)] == ["applied"]


def test_a_signer_who_uses_the_nonce_of_another_gets_an_answer_and_a_row_of_their_own(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mallory = Keeper(tmp_path / "mallory", subject="mallory@example.com", role=Role.VIEWER)
    keys = (stage.keeper, mallory)
    stage.keeper.ring.write_text(KeyRing({k.key.key_id: k.public for k in keys}).render())
    call, worker = call_of_broadcast(stage.settings.namespace, WHOAMI), stage.worker()
    texts = []
    with monkeypatch.context() as patched:
        patched.setattr(secrets, "token_hex", lambda _: "b" * 32)
        for who in keys:
            now, life = datetime.now(UTC), timedelta(minutes=10)
            texts.append(sign(who.key, who.identity, call, now=now, life=life))
    answers = [worker.whoami(WORKER, text)["subject"] for text in texts]
    assert answers == [who.subject for who in keys]
    stage.stored()
    assert [stage.rows(text) for text in texts] == [[(who.subject, "applied")] for who in keys]


def test_an_entry_with_a_time_in_the_future_leaves_no_verb_unaudited(stage: Stage) -> None:
    # Redis gives every later entry the time of this one at least.
    stage.client.xadd(stage.key, {"verb": "whoami"}, id="99999999999999-0")
    credential = stage.signed()
    answer = stage.worker().whoami(WORKER, credential)
    assert answer["denied"] == "not_audited"
    assert "has a time in the future" in answer["why"]
    assert len(stage.entries()) == 1
    stage.client.delete(stage.key)
    assert "subject" in stage.worker().whoami(WORKER, credential)
    stage.stored()
    assert len(stage.rows(credential)) == 1


@pytest.mark.parametrize(
    ("jobs", "stored"),
    [
        (json.dumps({"a": "x" * 100}), {"a": "x" * 100}),
        (json.dumps({"a": "x" * 10_000}), {"characters": 10_009, "sha256": ANY}),
        (json.dumps({"a": "x" * LONGEST_JOBS}), None),
    ],
)
def test_an_entry_without_a_credential_fills_no_row_of_the_audit_log(
    stage: Stage, jobs: str, stored: object
) -> None:
    broadcast = secrets.token_hex(32)
    event = CommandEvent(
        Action.CANCEL_REQUEST,
        WORKER,
        to_us(datetime.now(UTC)),
        "revoke",
        broadcast,
        json.dumps({"task_id": "x"}),
        outcome="applied",
        jobs=jobs,
    )
    stage.client.xadd(stage.key, event.fields())
    stage.stored()
    request_id = request_id_of_command(broadcast, signed=False)
    with stage.database.connect() as connection:
        found = [row["detail"]["jobs"] for row in rows_of(connection, request_id)]
    assert found == ([] if stored is None else [stored])
    assert stage.counts() == ({"malformed": 1} if stored is None else {})
