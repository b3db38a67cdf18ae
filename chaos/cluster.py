"""A whole cluster on this machine for one storm: servers, mirror, relay, workers, effects log."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self
from urllib.parse import urlsplit

import redis
from kombu import Connection, Queue
from sqlalchemy import make_url, text

from chaos.effects import DATABASE_VARIABLE, TABLE, WITNESS_VARIABLE
from chaos.installed import InstalledFleet
from chaos.native import NativeFleet
from chaos.setups import Setup
from chaos.supervisor import Daemon, Supervised, Supervisor
from servers import RabbitMQ, RedisServer
from support.proxy import Proxy
from support.worker import environment_of
from taskyard import database
from taskyard.broker import connection as broker_connection
from taskyard.broker.delay_exchanges import declare_delay, delay_prefix, delay_type
from taskyard.inbox import create_table
from taskyard.ops.embedded.stack import EmbeddedStack
from taskyard.ops.embedded.waiting import until
from taskyard.records import Records
from taskyard.settings import Settings
from taskyard.store import connect

__all__ = ["ROOT", "Cluster", "await_gone", "send"]

ROOT: Final = Path(__file__).resolve().parents[1]
WORKERS: Final = 2
CONCURRENCY: Final = 2
# Short, so that a storm shows what returns and not how long one waits.
LEASE_S: Final = 5.0
REPLIES: Final = "storm.replies"
_END_S: Final = 20.0
_READY_S: Final = 90.0


class Fleet(Protocol):
    """Who does the jobs: makes workers, and publishes for them.

    Jobs come to the first of `queues`; workers read all of them.
    """

    queues: tuple[str, ...]
    job_type: str

    def worker(self, number: int, concurrency: int, shift_s: float) -> Supervised:
        """A worker that is not started yet; its wall clock is `shift_s` ahead."""

    def send(self, batch: Mapping[int, str]) -> list[str]:
        """Enqueue jobs, the kind of each by its number; their ids. May be sent again."""

    def close(self) -> None:
        """Close connections."""


class Cluster:
    """Servers, mirror, relay and workers of one set-up.

    With `proxied` every connection of clients, workers, mirror and relay runs through a proxy.
    With `replies` a native client has a queue in which it waits for replies.
    """

    def __init__(
        self,
        folder: Path,
        setup: Setup,
        *,
        proxied: bool = False,
        shifts_s: Sequence[float] = (0, 0),
        replies: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.setup, self._proxied, self._shifts = folder, setup, proxied, shifts_s
        self.reply_to = REPLIES if replies and not setup.app else None
        self.stack = EmbeddedStack(folder / "home")
        self.redis = RedisServer(folder / "redis")
        rabbitmq = setup.broker == "rabbitmq"
        self.rabbitmq = RabbitMQ(folder / "rabbitmq") if rabbitmq else None
        self.effects_server = RedisServer(folder / "effects")
        self.proxies: dict[str, Proxy] = {}
        self.workers: list[Supervised] = []
        self.daemons: list[Supervised] = []
        self.supervisor = Supervisor()
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
        self._keep(self.effects_server.start, self.effects_server.stop)
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
        )
        self._prepare_database()
        self.effects_log = redis.Redis.from_url(self.effects_server.url)
        self._running.callback(self.effects_log.close)
        self.records = Records(connect(self.settings.need_redis_url()), self.settings)
        self._running.callback(self.records.client.close)
        self._declare_replies()
        self.fleet = self._fleet()
        self._running.callback(self.fleet.close)
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
            connection.execute(text(TABLE))

    def _declare_replies(self) -> None:
        if self.reply_to is not None:
            with broker_connection(self.settings) as connection:
                Queue(self.reply_to, channel=connection.default_channel).declare()

    def _fleet(self) -> Fleet:
        url = make_url(self.database_url).render_as_string(hide_password=False)
        path = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
        variables = {
            WITNESS_VARIABLE: self.effects_server.url,
            DATABASE_VARIABLE: url,
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONWARNINGS": "ignore:You're running the worker with superuser",
        }
        if not self.setup.app:
            return NativeFleet(self.settings, self.folder, variables, self.reply_to)
        whole = {**self.environment(), **variables}
        return InstalledFleet(self.setup, self.settings, self.folder, whole)

    def environment(self) -> dict[str, str]:
        """Of a process of ours in this set-up."""
        own = {name: value for name, value in os.environ.items() if name[:9] != "TASKYARD_"}
        return {**own, **environment_of(self.settings)}

    def _start_processes(self) -> None:
        self._running.callback(self.supervisor.stop)
        for name in ("mirror", "relay"):
            argv = [sys.executable, "-m", "taskyard.ops.cli", name]
            daemon = Daemon(name, argv, self.environment(), self.folder)
            self.supervisor.start(daemon)
            self.daemons.append(daemon)
        for number in range(WORKERS):
            shift_s = self._shifts[number % len(self._shifts)]
            worker = self.fleet.worker(number, CONCURRENCY, shift_s)
            self.supervisor.start(worker)
            self.workers.append(worker)
        for worker in self.workers:
            self._await_ready(worker)
        if self.rabbitmq is not None:
            self._declare_delays(self.rabbitmq)

    def _declare_delays(self, rabbitmq: RabbitMQ) -> None:
        """As at a broker that has been in use: RabbitMQ forgets new levels when it is killed."""
        with Connection(rabbitmq.url) as connection:
            channel = connection.default_channel
            kind = delay_type(channel.connection.server_properties)
            unbound = self.settings.model_copy(update={"queues": {}})
            declare_delay(channel, unbound, kind, delay_prefix(self.settings, kind))

    @staticmethod
    def _await_ready(worker: Supervised) -> None:
        until(lambda: " ready." in worker.log or not worker.running, within_s=_READY_S)
        if not worker.running or " ready." not in worker.log:
            raise RuntimeError(f"{worker.name} did not get ready:\n{worker.log[-6000:]}")

    def mend(self) -> None:
        """Start again whatever ended, as a supervisor does."""
        if not self.stack.postgres.running:
            self.stack.postgres.start()
        self.supervisor.ensure()

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
