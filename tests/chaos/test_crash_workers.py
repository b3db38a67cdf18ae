"""Jobs while workers are killed every second: none lost, none decided twice, no effect twice.

Children and whole workers die by SIGKILL, three to one. The short form runs with every test;
`make chaos` sets `TASKYARD_CHAOS_JOBS` for the long one. Writes build/crashes.json.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text

from servers import Servers
from support.crash import DATABASE_VARIABLE
from support.waiting import eventually
from support.worker import Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.client import EnqueueRequest
from taskyard.inbox import create_table
from taskyard.jobs.states import State
from taskyard.settings import Settings

pytestmark = pytest.mark.slow

JOBS = int(os.environ.get("TASKYARD_CHAOS_JOBS", "2500"))
WORKERS = 3
PREFETCH_MULTIPLIER = 8  # times two children: sixteen messages are held
KILL_EVERY_S = 1.0
# A worker takes seconds of two cores to start again, a child a moment.
CHILDREN_FOR_A_WORKER = 3
RESUMED_WITHIN_S = 45.0
# A job whose lease ran out waits behind what is queued: with little of it, what is measured is
# the resumption and not the length of the queue.
QUEUED = 100
FED = 50
# The machine may be busy, so the killing keeps pace with the work and not with the clock alone:
# a fleet that is killed faster than it starts shows only that nothing can start.
JOBS_FOR_A_KILL = 25
# Bounds a hang and promises nothing: one job in twenty milliseconds, and the starts.
PATIENCE_S = 300 + JOBS * 0.02
ENDS = ("complete", "fail")
REPORT = Path(__file__).resolve().parents[2] / "build" / "crashes.json"


@dataclass
class Killer:
    """Kills a child or a whole worker in turn, and starts another worker for a dead one."""

    harness: ServerHarness
    workers: list[Worker]
    rng: random.Random = field(default_factory=random.Random)
    children: int = 0
    whole: int = 0
    gave_up: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)
    orphans: list[tuple[str, int]] = field(default_factory=list)
    done: int = 0
    working: set[str] = field(default_factory=set)
    _seen: bytes = b"-"

    def run(self) -> None:
        while not self.stopped.wait(KILL_EVERY_S):
            self.supervise()
            self.look()
            ready = [w for w in self.workers if w.name in self.working and w.children()]
            if not ready or self.done < JOBS_FOR_A_KILL:
                continue
            self.done = 0
            worker = self.rng.choice(ready)
            if self.children < CHILDREN_FOR_A_WORKER * (self.whole + 1):
                self.kill_child(worker)
            else:
                self.kill_whole(worker)

    def look(self) -> None:
        """What happened since the last look: jobs that ended, workers that began one."""
        stream = f"{self.harness.settings.namespace}:lifecycle"
        entries = self.harness.redis.xrange(stream, min=self._seen)
        for key, fields in entries:
            self._seen = b"(" + key
            self.done += fields[b"event"].decode() in ENDS
            if fields[b"event"] == b"begin":
                self.working.add(fields[b"worker"].decode().partition("@")[0])

    def supervise(self) -> None:
        """Start again what ended: Celery gives up if a child dies while it starts."""
        for worker in self.workers:
            if not worker.running:
                self.gave_up += 1
                self.start(worker)

    def start(self, worker: Worker) -> None:
        """Start it; what it began in its former life says nothing of this one."""
        self.look()
        self.working.discard(worker.name)
        worker.launch()

    def kill_child(self, worker: Worker) -> None:
        try:
            os.kill(self.rng.choice(worker.children()), signal.SIGKILL)
        except (ProcessLookupError, IndexError):
            return
        self.children += 1

    def kill_whole(self, worker: Worker) -> None:
        held = self.held_by(worker.pid)
        worker.kill_session()
        worker.wait()
        self.whole += 1
        seconds, microseconds = self.harness.redis.time()
        self.orphans += [(job_id, seconds * 1_000_000 + microseconds) for job_id in held]
        self.start(worker)

    def held_by(self, pid: int) -> list[str]:
        """The jobs whose messages a worker's owner holds."""
        entries = self.harness.broker.hgetall(f"{self.harness.settings.namespace}:unacked")
        return [
            json.loads(stored)[0]["headers"]["id"]
            for tag, stored in entries.items()
            if tag.split(b".")[-2] == str(pid).encode()
        ]


def resumptions_s(orphans: list[tuple[str, int]], events: list[dict[str, str]]) -> list[float]:
    """How long after its worker's death something happened to each job that had not ended.

    A job whose next worker dies as well, before it began the job, waits from that death on.
    """
    times: dict[str, list[int]] = defaultdict(list)
    for event in events:
        times[event["job"]].append(int(event["at"]))
    deaths: dict[str, list[int]] = defaultdict(list)
    for job_id, killed_us in orphans:
        deaths[job_id].append(killed_us)
    waits = []
    for job_id, killed_us in orphans:
        found = min((at for at in times[job_id] if at > killed_us), default=None)
        if found is not None and not any(killed_us < again < found for again in deaths[job_id]):
            waits.append((found - killed_us) / 1e6)
    return waits


def feed(harness: ServerHarness, numbers: range) -> list[str]:
    requests = [EnqueueRequest(job_type="effect_once", payload={"n": n}) for n in numbers]
    return [handle.job_id for handle in harness.yard.enqueue_many(requests)]


@pytest.fixture
def effects(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        create_table(connection)
        connection.execute(text("CREATE TABLE effects (job_id text, attempt int)"))
    yield engine
    engine.dispose()


@pytest.fixture
def settings(servers: Servers) -> Settings:
    return fresh_settings(servers.valkey_url(), lifecycle_max_events=1_000_000)


@pytest.fixture
def workers(harness: ServerHarness, tmp_path: Path, database_url: str) -> Iterator[list[Worker]]:
    with ExitStack() as running:
        made = [
            Worker(
                harness.settings,
                tmp_path / f"w{number}",
                queues=("exec",),
                modules=("support.crash",),
                options=("--prefetch-multiplier", str(PREFETCH_MULTIPLIER), "-l", "WARNING"),
                environment={DATABASE_VARIABLE: database_url},
                name=f"w{number}",
            )
            for number in range(WORKERS)
        ]
        yield [running.enter_context(worker.launch()) for worker in made]


@pytest.mark.timeout(int(PATIENCE_S) + 120)
def test_jobs_survive_workers_that_are_killed_every_second(
    harness: ServerHarness, workers: list[Worker], effects: Engine
) -> None:
    started = time.monotonic()
    ids: list[str] = []

    def fed_and_nearly_done() -> bool:
        if len(ids) < JOBS and harness.queued() < QUEUED:
            more = range(len(ids), min(len(ids) + FED, JOBS))
            ids.extend(feed(harness, more))
        waiting = harness.queued() + harness.unacked() + harness.delayed()
        return len(ids) == JOBS and waiting < JOBS // 50

    killer = Killer(harness, workers)
    thread = threading.Thread(target=killer.run, name="killer")
    thread.start()
    try:
        eventually(
            fed_and_nearly_done,
            "nearly all are done while the killing goes on",
            within_s=PATIENCE_S,
            why=lambda: str(harness.leftovers()),
        )
    finally:
        killer.stopped.set()
        thread.join()
    # A job that was cut off in the last moment waits for its lease, as the promise says.
    eventually(
        lambda: not harness.leftovers(),
        "nothing left",
        within_s=2 * RESUMED_WITHIN_S,
        why=lambda: str(harness.leftovers()),
    )
    events = harness.events()
    resumed_s = resumptions_s(killer.orphans, events)
    ended = Counter(event["job"] for event in events if event["event"] in ENDS)
    states = Counter(harness.yard.job(job_id).state() for job_id in ids)
    with effects.connect() as connection:
        rows = connection.execute(text("SELECT job_id FROM effects")).scalars().all()
    applied = Counter(rows)
    report = {
        "jobs": JOBS,
        "seconds": round(time.monotonic() - started, 1),
        "children_killed": killer.children,
        "workers_killed": killer.whole,
        "workers_that_gave_up": killer.gave_up,
        "lost": sum(1 for job_id in ids if ended[job_id] == 0),
        "outcomes_recorded_twice": sum(1 for count in ended.values() if count > 1),
        "effects_applied_twice": sum(1 for count in applied.values() if count > 1),
        "effects_missing": len(set(ids) - set(applied)),
        "poisoned": states[State.DEAD_LETTERED],
        "runs_repeated": sum(1 for event in events if event["event"] == "begin") - JOBS,
        "orphans": len(killer.orphans),
        "slowest_resumption_s": round(max(resumed_s, default=0.0), 1),
    }
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    assert killer.children > 0, report
    assert killer.whole > 0, report
    assert report["lost"] == 0, report
    assert report["outcomes_recorded_twice"] == 0, report
    assert report["effects_applied_twice"] == 0, report
    assert states == {State.COMPLETED: JOBS}, report
    assert report["effects_missing"] == 0, report
    assert max(resumed_s, default=0.0) < RESUMED_WITHIN_S, report
