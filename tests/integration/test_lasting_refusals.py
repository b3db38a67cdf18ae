"""A refusal that does not heal by itself: waits that grow, one line in the log, nothing lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from servers import RedisServer, Servers
from support.legacy import Legacy, Process
from support.waiting import eventually
from support.worker import Worker
from support.yard import ServerHarness, catalogue
from taskyard.client import JobHandle, Taskyard
from taskyard.jobs.states import State
from taskyard.settings import Settings

pytestmark = pytest.mark.slow

NAMESPACE = "acme"
# What a worker touches, so that one of them can be taken away.
KEYS = (
    "job:*", "lifecycle*", "celery-task*", "delayed*", "unacked*", "heartbeats", "_kombu*",
    "acme.*", "letters*", "notes*", "result*", "places", "broker", "*.pidbox*", "celeryev*",
    "switches*",
)  # fmt: skip
JOBS = 6
WATCHED_S = 6.0


@dataclass(frozen=True)
class Case:
    """The keys that are barred, what the log says of it, and what a job does to meet it."""

    barred: str
    said: str
    act: Callable[[ServerHarness], JobHandle]
    end: State = State.COMPLETED


def plain(harness: ServerHarness) -> JobHandle:
    return harness.act()


def late(harness: ServerHarness) -> JobHandle:
    return harness.act(countdown=0.2)


def fatal(harness: ServerHarness) -> JobHandle:
    return harness.act("fail", policy={"max_retries": 0})


CASES = {
    "begin": Case("job:*", "the records of jobs could not be reached", plain),
    "pop": Case(
        "unacked*",
        "Redis refused to give messages, so this worker takes none from its queues",
        plain,
    ),
    "promotion": Case(
        "delayed*", "due messages were not moved from the delay store to their queues", late
    ),
    "letter": Case("_kombu*", "a dead letter was not published", fatal, State.DEAD_LETTERED),
}


class Barrier:
    """The user `worker` of a Redis, and which keys it may not touch."""

    def __init__(self, server: RedisServer) -> None:
        self.url = server.url.replace("redis://", "redis://worker:pw@")
        self._client = Redis.from_url(server.url)
        self.set()

    def set(self, barred: str = "") -> None:
        keys = [f"~{NAMESPACE}:{key}" for key in KEYS if key != barred]
        words = ["on", ">pw", "resetkeys", *keys, "&*", "+@all"]
        self._client.execute_command("ACL", "SETUSER", "worker", *words)


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    running = RedisServer(tmp_path_factory.mktemp("refusing"))
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def barrier(redis_server: RedisServer) -> Barrier:
    return Barrier(redis_server)


def worker_of(settings: Settings, folder: Path) -> Worker:
    return Worker(settings, folder, queues=("exec",)).start()


@pytest.fixture(scope="module")
def worker(barrier: Barrier, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    settings = Settings(namespace=NAMESPACE, broker_url=barrier.url, redis_url=barrier.url)
    with worker_of(settings, tmp_path_factory.mktemp("worker")) as running:
        yield running


@pytest.fixture
def harness(redis_server: RedisServer, worker: Worker) -> Iterator[ServerHarness]:
    """Jobs are enqueued by a user who may do everything."""
    url = redis_server.url
    opened = ServerHarness(Settings(namespace=NAMESPACE, broker_url=url, redis_url=url))
    yield opened
    opened.yard.close()


@pytest.mark.parametrize("name", CASES)
def test_a_worker_waits_longer_each_time_and_says_it_once(
    harness: ServerHarness, worker: Worker, barrier: Barrier, name: str
) -> None:
    case, before = CASES[name], len(worker.log)
    barrier.set(case.barred)
    try:
        jobs = [case.act(harness) for _ in range(JOBS)]
        watched(worker, before, case.said)
    finally:
        barrier.set()
    for job in jobs:
        harness.await_state(job, case.end)
    over = f"{case.said}: this works again"
    eventually(lambda: over in worker.log[before:], over, why=lambda: worker.log[before:])
    assert worker.running
    assert "Connection to broker lost" not in worker.log[before:], "no job was cut off for it"
    assert all(harness.runs(job) == 1 for job in jobs)
    harness.await_quiet()
    dead = [job.job_id for job in jobs] if case.end is State.DEAD_LETTERED else []
    assert sorted(letter["job_id"] for letter in harness.letters()) == sorted(dead)


def watched(worker: Worker | Process, before: int, said: str) -> None:
    """Look at the worker for some seconds: it neither loops nor repeats itself."""
    eventually(lambda: said in worker.log[before:], said, why=lambda: worker.log[before:])
    until = time.monotonic() + WATCHED_S
    eventually(lambda: time.monotonic() > until, "time has passed")
    log = worker.log[before:]
    assert log.count(said) == 1, log
    # 1 + 2 + 4 s, at random up to half of it less: no job comes a fifth time.
    assert log.count(" received") <= 4 * JOBS, log


def test_at_rabbitmq_what_the_records_refuse_waits_longer_each_time(
    servers: Servers, redis_server: RedisServer, barrier: Barrier, tmp_path: Path
) -> None:
    rabbit: dict[str, Any] = {"namespace": NAMESPACE, "broker_url": servers.rabbitmq_url()}
    records, said = Settings(redis_url=redis_server.url, **rabbit), CASES["begin"].said
    with (
        worker_of(Settings(redis_url=barrier.url, **rabbit), tmp_path) as worker,
        Taskyard(records, catalogue()) as yard,
    ):
        barrier.set("job:*")
        jobs = [yard.enqueue("exec_act", {"value": number}) for number in range(JOBS)]
        watched(worker, 0, said)
        barrier.set()
        assert [job.result(timeout=60) for job in jobs] == list(range(JOBS))
        assert f"{said}: this works again" in worker.log


@pytest.mark.parametrize("broker", ["our transport", "kombu's", "rabbitmq"])
def test_an_installed_apps_worker_waits_longer_each_time_and_says_it_once(
    servers: Servers, redis_server: RedisServer, barrier: Barrier, tmp_path: Path, broker: str
) -> None:
    url = servers.rabbitmq_url() if broker == "rabbitmq" else redis_server.url
    settings = Settings(namespace=NAMESPACE, redis_url=barrier.url, broker_url=url)
    said, app = CASES["begin"].said, Legacy(
        "protect", url, redis_server.url, settings, tmp_path, redis_server.url,
        transport=broker == "our transport",
    )  # fmt: skip
    with closing(app):
        worker = app.worker()
        barrier.set("job:*")
        with app.producer() as tasks:
            sent = [tasks.add.delay(number, 1) for number in range(JOBS)]
            watched(worker, 0, said)
            barrier.set()
            assert [one.get(timeout=60) for one in sent] == list(range(1, JOBS + 1))
        assert f"{said}: this works again" in worker.log
