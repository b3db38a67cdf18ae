"""A whole yard on this machine for one storm: servers, mirror, relay, workers, and a witness."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import redis
from sqlalchemy import make_url, text

from chaos.clocks import SHIFT_VARIABLE
from chaos.jobs import DATABASE_VARIABLE, WITNESS_VARIABLE
from servers import RabbitMQ, RedisServer
from support.proxy import Proxy
from support.worker import Worker, environment_of
from taskyard import database
from taskyard.client import Taskyard
from taskyard.inbox import create_table
from taskyard.jobs import Catalogue, JobType
from taskyard.ops.embedded.stack import EmbeddedStack
from taskyard.ops.embedded.waiting import until
from taskyard.settings import Settings

__all__ = ["BROKERS", "ROOT", "Town", "await_gone", "send"]

ROOT: Final = Path(__file__).resolve().parents[1]
BROKERS: Final = ("redis", "rabbitmq")
WORKERS: Final = 2
CONCURRENCY: Final = 2
# Short, so that a storm shows what returns and not how long one waits.
LEASE_S: Final = 5.0
VISIBILITY_S: Final = 20.0
_END_S: Final = 20.0


@dataclass
class Servant:
    """Mirror or relay, as its own process."""

    name: str
    environment: dict[str, str]
    folder: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it; what it says goes to a file."""
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "taskyard.ops.cli", self.name],
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_END_S)

    def ensure(self) -> None:
        """Start it again if it ended."""
        if self._process is None or self._process.poll() is not None:
            self.start()


class Town:
    """`broker` is `redis` (Valkey; broker and records in one) or `rabbitmq`.

    With `proxied` every connection of clients, workers, mirror and relay runs through a proxy.
    """

    def __init__(
        self,
        folder: Path,
        broker: str,
        *,
        proxied: bool = False,
        shifts_s: Sequence[float] = (0, 0),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.broker, self._proxied, self._shifts = folder, broker, proxied, shifts_s
        self.stack = EmbeddedStack(folder / "home")
        self.redis = RedisServer(folder / "redis")
        self.rabbitmq = RabbitMQ(folder / "rabbitmq") if broker == "rabbitmq" else None
        self.witness_server = RedisServer(folder / "witness")
        self.proxies: dict[str, Proxy] = {}
        self.workers: list[Worker] = []
        self.servants: list[Servant] = []
        self._running = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._running.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._running.close()

    def _start(self) -> None:
        self._keep(self.witness_server.start, self.witness_server.stop)
        self._keep(self.stack.start, self.stack.stop)
        self._keep(self.redis.start, self.redis.stop)
        if self.rabbitmq is not None:
            self._keep(self.rabbitmq.start, self.rabbitmq.stop)
        self.database_url = self._through("postgres", self.stack.database_url)
        redis_url = self._through("redis", self.redis.url)
        broker_url = redis_url
        if self.rabbitmq is not None:
            broker_url = self._through("rabbitmq", self.rabbitmq.url)
        self.settings = Settings(
            namespace="storm",
            redis_url=redis_url,
            broker_url=broker_url,
            database_url=self.database_url,
            lease_s=LEASE_S,
            visibility_timeout_s=VISIBILITY_S,
        )
        self._prepare_database()
        self.witness = redis.Redis.from_url(self.witness_server.url)
        self._running.callback(self.witness.close)
        self.client = Taskyard(self.settings, self._catalogue())
        self._running.callback(self.client.close)
        self._start_processes()

    def _keep(self, start: Callable[[], object], stop: Callable[[], object]) -> None:
        self._running.callback(stop)
        start()

    def _through(self, name: str, url: str) -> str:
        """`url`, or the same by way of a proxy."""
        if not self._proxied:
            return url
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        proxy = self._running.enter_context(Proxy(parts.hostname, parts.port))
        self.proxies[name] = proxy
        return url.replace(f":{parts.port}/", f":{proxy.port}/")

    def _prepare_database(self) -> None:
        database.migrate(self.stack.database_url)
        self.engine = database.engine(self.stack.database_url)
        self._running.callback(self.engine.dispose)
        with self.engine.begin() as connection:
            create_table(connection)
            connection.execute(
                text(
                    "CREATE TABLE chaos_effects (job_id text, at timestamptz "
                    "DEFAULT clock_timestamp())"
                )
            )

    @staticmethod
    def _catalogue() -> Catalogue:
        return Catalogue.load(built_in=True).with_type(JobType(name="storm_deed", queue="exec"))

    def _start_processes(self) -> None:
        environment = {
            **{name: value for name, value in os.environ.items() if name[:9] != "TASKYARD_"},
            **environment_of(self.settings),
        }
        for name in ("mirror", "relay"):
            servant = Servant(name, environment, self.folder)
            servant.start()
            self.servants.append(servant)
            self._running.callback(servant.kill)
        for number in range(WORKERS):
            worker = self._worker(number)
            self.workers.append(worker)
            self._running.callback(_end, worker.launch())
        for worker in self.workers:
            worker.await_log(" ready.", within_s=90)

    def _worker(self, number: int) -> Worker:
        url = make_url(self.database_url).render_as_string(hide_password=False)
        folder = self.folder / f"worker-{number}"
        path = [str(folder), str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
        return Worker(
            self.settings,
            folder,
            queues=("exec",),
            concurrency=CONCURRENCY,
            modules=("chaos.quiet", "chaos.clocks", "chaos.jobs"),
            environment={
                WITNESS_VARIABLE: self.witness_server.url,
                DATABASE_VARIABLE: url,
                SHIFT_VARIABLE: str(self._shifts[number % len(self._shifts)]),
                "PYTHONPATH": os.pathsep.join(path),
                "PYTHONWARNINGS": "ignore:You're running the worker with superuser",
            },
            name=f"worker-{number}",
        )

    def mend(self) -> None:
        """Start again whatever ended, as a supervisor does."""
        if not self.stack.postgres.running:
            self.stack.postgres.start()
        for servant in self.servants:
            servant.ensure()
        for worker in self.workers:
            if not worker.running:
                worker.kill_session()
                worker.launch()

    # -- the servers' processes ----------------------------------------------------------------

    def pids(self, server: str) -> list[int]:
        """The server's main process and everything below it."""
        match server:
            case "redis":
                return [self.redis.pid]
            case "rabbitmq":
                assert self.rabbitmq is not None
                return _family(self.rabbitmq.pid)
            case _:
                pid = self.stack.postgres.pid
                return [] if pid is None else _family(pid)

    def start(self, server: str) -> None:
        """Start a server that was killed, with the data it has."""
        match server:
            case "redis":
                self.redis.stop()
                self.redis.start()
            case "rabbitmq":
                assert self.rabbitmq is not None
                self.rabbitmq.stop()
                self.rabbitmq.start()
            case _:
                self.stack.postgres.start()


def _end(worker: Worker) -> None:
    """All is counted by then; a warm end would only take its time."""
    worker.kill_session()
    worker.wait()


def _family(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    children = [int(child) for child in listed.read_text().split()] if listed.exists() else []
    return [pid, *(one for child in children for one in _family(child))]


def send(pids: Sequence[int], number: signal.Signals) -> None:
    """Send a signal to processes that may have ended."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def await_gone(pids: Sequence[int], within_s: float = _END_S) -> None:
    """Wait until none of them runs."""
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), within_s=within_s)
