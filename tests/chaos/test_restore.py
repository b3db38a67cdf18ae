"""Postgres goes back to an earlier state, Redis is flushed: nothing is published twice."""

from __future__ import annotations

import os
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError
from sqlalchemy import Engine, func, make_url, select

from servers import RedisServer
from support.mirror import mirroring
from support.shell import Shell
from support.waiting import eventually
from support.worker import Worker, environment_of
from support.yard import ServerHarness, fresh_settings
from taskyard.access import Identity, Role
from taskyard.audit import rows_of
from taskyard.client import JobHandle
from taskyard.control import ReplayRequested, replay
from taskyard.database.tables import AUDIT, LETTERS, OUTBOX
from taskyard.errors import GateClosed
from taskyard.gate import Gate
from taskyard.jobs.states import State
from taskyard.ops.embedded.embedded_wheels import postgres_binaries
from taskyard.reconcile import Kind, Reconciler, accept
from taskyard.relay import Relay
from taskyard.settings import Settings
from taskyard.wire.letter_envelope import letter_id

pytestmark = pytest.mark.slow

OPS = Identity("ops@example.com", via="token", role=Role.ADMIN)
WHY = "Infrastructure recovered after 2-hour outage"


class Hours:
    """A clock by which a beat is always due."""

    now_s = 0.0

    def monotonic_s(self) -> float:
        self.now_s += 3600
        return self.now_s


@dataclass
class Counting:
    """The real publisher, with every publication of the relay written down."""

    real: Any
    sent: Counter[tuple[str, int]] = field(default_factory=Counter)

    def publish_many(self, messages: Any) -> Any:
        outcomes = self.real.publish_many(messages)
        self.sent.update((one.job_id, one.stamp.generation) for one in messages)
        return outcomes


class RestoreHarness:
    """A worker, a mirror in the background, and a relay that works when it is told to."""

    def __init__(self, harness: ServerHarness, database: Engine, url: str) -> None:
        self.harness, self.database, self.url = harness, database, url
        settings, records = harness.settings, harness.yard.records
        self.gate = Gate(settings.namespace, records.client, Hours())  # type: ignore[arg-type] # all it asks
        self.publisher = Counting(harness.yard.publisher)
        self.relay = Relay(settings, database, records, self.publisher, self.gate)
        self.reconciler = Reconciler(settings, database, records, harness.yard.publisher, grace_s=0)

    def die(self) -> JobHandle:
        """A job that fails for good, and would succeed when replayed; its letter is stored."""
        job = self.harness.act("fail", "locator_act", code="hopeless", times=1)
        assert self.harness.await_end(job) is State.DEAD_LETTERED
        eventually(lambda: self.status(job), "its letter in Postgres")
        return job

    def letter(self, job: JobHandle) -> str:
        return letter_id(job.job_id, job.record().epoch, 0)

    def status(self, job: JobHandle) -> str | None:
        query = select(LETTERS.c.status).where(LETTERS.c.original_request_id == job.job_id)
        with self.database.connect() as connection:
            return connection.scalar(query)

    def ask(self, letter: str) -> ReplayRequested:
        return replay(self.database, letter, identity=OPS, reason=WHY)

    def carry_out(self) -> int:
        """Let the relay do all there is; how many intents it answered."""
        self.gate.beat(self.database)
        before = self.unanswered()
        while self.relay.run_once():
            pass
        return before - self.unanswered()

    def unanswered(self) -> int:
        query = select(func.count()).select_from(OUTBOX).where(OUTBOX.c.done_at.is_(None))
        with self.database.connect() as connection:
            return int(connection.scalar(query) or 0)

    def outcomes(self, asked: ReplayRequested) -> list[str]:
        with self.database.connect() as connection:
            return [row["outcome"] for row in rows_of(connection, asked.request_id)]

    def tool(self, name: str, *words: str) -> None:
        """Run one of PostgreSQL's programs against this database."""
        url = make_url(self.url)
        where = [f"--host={url.host}", f"--port={url.port}", f"--username={url.username}"]
        subprocess.run(
            [str(postgres_binaries() / name), *where, f"--dbname={url.database}", *words],
            env={**os.environ, "PGPASSWORD": url.password or ""},
            check=True,
            capture_output=True,
        )

    def dump(self, file: Path) -> None:
        self.tool("pg_dump", "--format=custom", f"--file={file}")

    def restore(self, file: Path) -> None:
        """As an operator does it: everything that came after the dump is gone."""
        self.database.dispose()
        self.tool("psql", "--command=DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        self.tool("pg_restore", "--no-owner", str(file))


@pytest.fixture
def yard(
    harness: ServerHarness, database_url: str, start_worker: Callable[..., Worker]
) -> Iterator[RestoreHarness]:
    start_worker()
    with mirroring(harness.settings, database_url) as database:
        made = RestoreHarness(harness, database, database_url)
        yield made
        made.reconciler.close()


def test_a_postgres_restored_to_before_the_replays_publishes_none_of_them_again(
    yard: RestoreHarness, tmp_path: Path
) -> None:
    asked_before, asked_after, never_asked = yard.die(), yard.die(), yard.die()
    letters = {job: yard.letter(job) for job in (asked_before, asked_after, never_asked)}
    early = yard.ask(letters[asked_before])
    yard.gate.beat(yard.database)
    yard.dump(tmp_path / "ten minutes ago")

    yard.ask(letters[asked_after])
    assert yard.carry_out() == 2
    for job in (asked_before, asked_after):
        assert yard.harness.await_end(job) is State.COMPLETED
    died_after = yard.die()
    for _ in range(3):
        yard.gate.beat(yard.database)
    runs = {job: yard.harness.runs(job) for job in (*letters, died_after)}

    yard.restore(tmp_path / "ten minutes ago")
    assert (yard.status(asked_after), yard.status(died_after)) == ("pending", None)
    with pytest.raises(GateClosed, match=r"Postgres is at least .* s of relay time behind Redis"):
        yard.relay.run_once()
    with pytest.raises(GateClosed, match="taskyard reconcile --accept"):
        yard.gate.beat(yard.database)
    again = yard.ask(letters[asked_after])
    with pytest.raises(GateClosed):
        yard.relay.run_once()

    report = accept(yard.reconciler, yard.database, OPS, WHY)
    assert report.repaired[Kind.REPLAY_APPLIED] == 1
    assert report.repaired[Kind.LETTER_MISSING] == 1
    assert report.gate is None
    assert yard.carry_out() == 1, "only the one that was asked for again"
    assert yard.outcomes(early) == ["requested", "applied"]
    assert yard.outcomes(again)[-1].startswith("refused")
    assert set(yard.publisher.sent.values()) == {1}, "no generation was published twice"
    assert len(yard.publisher.sent) == 2
    yard.harness.await_quiet()
    assert {job: yard.harness.runs(job) for job in runs} == runs
    eventually(lambda: yard.status(died_after) == "pending", "the letter that came after the dump")
    eventually(
        lambda: (yard.reconciler.run(repair=True), not yard.reconciler.run().total)[1],
        "agreement",
        why=lambda: str(yard.reconciler.run().document()),
    )
    with yard.database.connect() as connection:
        row = connection.execute(select(AUDIT).where(AUDIT.c.action_type == "accept_restore"))
        (audited,) = row.mappings()
    assert (audited["outcome"], audited["reason"]) == ("applied", WHY)
    assert audited["detail"]["drift"]["replay_applied"] == 1


def test_a_flushed_redis_shuts_the_relay_and_its_letters_still_run(
    database_url: str, tmp_path: Path
) -> None:
    server = RedisServer(tmp_path / "redis")
    server.start()
    settings = fresh_settings(server.url)
    harness = ServerHarness(settings)
    try:
        with (
            Worker(settings, tmp_path).launch(),
            mirroring(settings, database_url) as database,
        ):
            _flush(RestoreHarness(harness, database, database_url))
    finally:
        harness.close()
        server.stop()


def _flush(yard: RestoreHarness) -> None:
    first, second = yard.die(), yard.die()
    letters = {job: yard.letter(job) for job in (first, second)}
    yard.gate.beat(yard.database)
    open_intent = yard.ask(letters[first])
    yard.harness.redis.flushall()
    with pytest.raises(GateClosed, match="Redis was flushed, replaced or restored"):
        yard.relay.run_once()

    report = accept(yard.reconciler, yard.database, OPS, WHY)
    assert report.repaired[Kind.REPLAY_UNKNOWN] == 1
    assert set(letters.values()) <= set(report.examples[Kind.LETTER_WITHOUT_RECORD])
    assert "refused: requested before a restore" in yard.outcomes(open_intent)[-1]
    assert yard.carry_out() == 0
    assert not yard.publisher.sent
    yard.ask(letters[first])
    assert yard.carry_out() == 1
    # The handler's notes were flushed too, so that it fails once more: as the next generation.
    eventually(lambda: yard.harness.runs(first), "a run from the letter alone")
    eventually(lambda: first.state() is State.DEAD_LETTERED, "its end")
    assert first.record().generation == 1
    assert yard.status(second) == "pending"
    yard.reconciler.close()


def test_a_running_relay_waits_for_the_gate_and_goes_on_without_a_restart(
    yard: RestoreHarness,
) -> None:
    job = yard.die()
    yard.gate.beat(yard.database)
    yard.harness.redis.delete(f"{yard.harness.settings.namespace}:gate")
    stop = threading.Event()
    thread = threading.Thread(target=yard.relay.run, args=(stop,))
    thread.start()
    try:
        asked = yard.ask(yard.letter(job))
        with pytest.raises(GateClosed):
            yard.gate.beat(yard.database)
        assert yard.outcomes(asked) == ["requested"]
        accept(yard.reconciler, yard.database, OPS, WHY)
        eventually(lambda: yard.outcomes(asked)[-1] == "applied", "the replay")
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


def test_the_command_tells_drift_and_gate_and_opens_it(
    settings: Settings, database_url: str, harness: ServerHarness, tmp_path: Path
) -> None:
    variables = {**environment_of(settings), "TASKYARD_DATABASE_URL": database_url}
    shell = Shell(tmp_path, variables)
    fine = shell.run("reconcile", "--json")
    assert fine.document["gate"] == {"open": True, "why": None}
    harness.redis.set(f"{settings.namespace}:gate", "00000000-0000-0000-0000-000000000001 99")
    harness.redis.zadd(f"{settings.namespace}:delayed", {"half": 1})
    shut = shell.run("reconcile")
    assert shut.code == 1
    assert "delayed_without_message" in shut.out
    assert "the gate is closed: Postgres has no mark" in shut.out
    assert "taskyard reconcile --accept" in shut.out

    denied = shell.run("reconcile", "--accept", "--reason", WHY)
    assert (denied.code, "TASKYARD_TRUST_LOCAL" in denied.err) == (6, True)
    opened = shell.run("reconcile", "--accept", "--reason", WHY, TASKYARD_TRUST_LOCAL="1")
    assert "the gate is closed" not in opened.out
    assert harness.redis.zcard(f"{settings.namespace}:delayed") == 0
    assert shell.run("reconcile", "--json").document["gate"]["open"]


def test_a_redis_that_is_away_is_no_drift(
    settings: Settings, database_url: str, tmp_path: Path
) -> None:
    away = {"TASKYARD_REDIS_URL": "redis://127.0.0.1:1/0"}
    variables = {**environment_of(settings), "TASKYARD_DATABASE_URL": database_url, **away}
    ran = Shell(tmp_path, variables).run("reconcile")
    assert ran.code == 3
    assert "does not answer" in ran.err
    assert RedisError.__name__ not in ran.out
