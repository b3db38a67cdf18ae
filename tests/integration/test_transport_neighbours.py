"""Stock Celery beside ours on the same queues: producer, worker, `inspect`, events, Flower."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from servers import RedisServer, free_port
from support.waiting import eventually
from support.worker import Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.jobs.states import State
from taskyard.settings import Settings

STOCK_APP = """
import os
import redis
from celery import Celery

url = os.environ["STOCK_URL"]
app = Celery("stock", broker=url, backend=url)
app.conf.update(task_acks_late=True, broker_connection_retry_on_startup=True)
notes = redis.Redis.from_url(url)


@app.task(name="raw_act", bind=True)
def raw_act(self, payload):
    notes.sadd("stock:done", self.request.id)
    return payload
"""


@pytest.fixture
def settings(server: RedisServer) -> Settings:
    # The default namespace: the names are those that every Celery client uses.
    return fresh_settings(server.url, namespace="taskyard")


@pytest.fixture
def stock(server: RedisServer) -> Iterator[Celery]:
    app = Celery("stock", broker=server.url, backend=server.url, set_as_current=False)
    yield app
    app.close()


@contextmanager
def stock_worker(folder: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of plain Celery on the queue `exec`."""
    (folder / "stock_app.py").write_text(STOCK_APP)
    argv = [sys.executable, "-m", "celery", "-A", "stock_app", "worker", "-Q", "exec", "-c", "1"]
    argv += ["-l", "INFO"]
    with (folder / "stock.log").open("wb") as log:
        process = subprocess.Popen(
            argv, cwd=folder, env={**os.environ, "STOCK_URL": url}, stdout=log, stderr=log
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def worker(harness: ServerHarness, start_worker: Callable[..., Worker]) -> Worker:
    # With gossip and mingle, as an operator starts it.
    started = start_worker(queues=("exec",))
    started.await_log(" ready.")
    return started


def test_a_stock_producers_job_runs_and_its_result_is_read_by_stock_celery(
    harness: ServerHarness, worker: Worker, stock: Celery
) -> None:
    sent = stock.send_task("raw_act", args=[{"n": 1}], queue="exec")
    assert sent.get(timeout=40) == {"n": 1}, worker.log[-3000:]
    assert harness.yard.job(sent.id).state() is State.COMPLETED
    harness.await_quiet()


def test_a_stock_worker_shares_a_queue_with_ours_and_nothing_runs_nowhere(
    harness: ServerHarness, worker: Worker, server: RedisServer, tmp_path: Path
) -> None:
    with stock_worker(tmp_path, server.url):
        log = tmp_path / "stock.log"
        eventually(lambda: " ready." in log.read_text(), "the stock worker consumes")
        jobs: list[Any] = []

        def stock_has_taken_some() -> bool:
            jobs.extend(harness.yard.enqueue("raw_act", {"n": len(jobs)}) for _ in range(20))
            return bool(harness.redis.scard("stock:done"))

        eventually(stock_has_taken_some, "both take some")

        def ended() -> set[str]:
            stock_done = {raw.decode() for raw in harness.redis.smembers("stock:done")}
            ours = {job.job_id for job in jobs if job.state() is State.COMPLETED}
            assert not stock_done & ours
            return stock_done | ours

        everything = {job.job_id for job in jobs}
        eventually(lambda: ended() == everything, "every job ran on one of them")
        eventually(lambda: not harness.leftovers(), "nothing is left")


def test_celery_inspect_and_control_reach_our_worker(worker: Worker, stock: Celery) -> None:
    answers = eventually(lambda: stock.control.inspect(timeout=5).ping(), "a ping's answer")
    (name,) = answers
    assert name.startswith("worker@")
    inspect = stock.control.inspect([name], timeout=5)
    assert "raw_act" in inspect.registered()[name]
    assert [queue["name"] for queue in inspect.active_queues()[name]] == ["exec"]
    assert inspect.stats()[name]["pool"]["max-concurrency"] == 2
    (reply,) = stock.control.add_consumer("plan", destination=[name], reply=True, timeout=5)
    assert "ok" in reply[name]


def test_stock_celery_hears_the_events_of_our_worker(
    harness: ServerHarness, worker: Worker, stock: Celery
) -> None:
    heard: list[dict[str, Any]] = []
    with stock.connection() as connection:
        receiver = stock.events.Receiver(connection, handlers={"*": heard.append})
        with receiver.consumer_context() as (opened, _, _):

            def reported() -> bool:
                # A first job may pass before the subscription stands.
                job = harness.yard.enqueue("raw_act", {"n": 1})
                with suppress(TimeoutError):
                    while True:
                        opened.drain_events(timeout=0.5)
                        types = [each["type"] for each in heard if each.get("uuid") == job.job_id]
                        if "task-succeeded" in types:
                            return types == ["task-received", "task-started", "task-succeeded"]
                return False

            eventually(reported, "the events of the job's way")


@contextmanager
def flower(folder: Path, url: str) -> Iterator[str]:
    """A stock Flower, which knows nothing but the broker; its API's address."""
    port = free_port()
    argv = [sys.executable, "-m", "celery", "--broker", url, "flower", "--address=127.0.0.1"]
    argv += [f"--port={port}", "--enable_events=True"]
    environment = {**os.environ, "FLOWER_UNAUTHENTICATED_API": "true"}
    with (folder / "flower.log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{port}/api"
        finally:
            process.kill()
            process.wait()


def asked(address: str) -> dict[str, Any]:
    """What Flower's API answers; nothing while it is not there yet."""
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310 - our own
            found: dict[str, Any] = json.loads(answer.read())
    except OSError:
        return {}
    return found


def test_flower_shows_our_worker_and_its_jobs(
    harness: ServerHarness, worker: Worker, server: RedisServer, tmp_path: Path
) -> None:
    with flower(tmp_path, server.url) as api:

        def reported() -> str:
            return (tmp_path / "flower.log").read_text("utf-8", "replace")[-4000:]

        workers = eventually(lambda: asked(f"{api}/workers?refresh=1"), "a worker", why=reported)
        (name,) = workers
        assert name.startswith("worker@")
        assert "raw_act" in workers[name]["registered"]
        assert [queue["name"] for queue in workers[name]["active_queues"]] == ["exec"]

        def shown() -> dict[str, Any]:
            # A first job may pass before Flower hears events.
            job = harness.yard.enqueue("raw_act", {"n": 1})
            assert job.result(30) == {"n": 1}
            task = asked(f"{api}/task/info/{job.job_id}")
            return task if task.get("state") == "SUCCESS" else {}

        task = eventually(shown, "a job that succeeded", why=reported)
        assert (task["name"], task["worker"]) == ("raw_act", name)
        assert task["uuid"] in asked(f"{api}/tasks")
