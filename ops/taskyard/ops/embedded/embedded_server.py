"""What both embedded servers share: a stored address, a supervisor, an awaited start."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.errors import ServerUnreachable
from taskyard.ops.embedded.data_folder import Home
from taskyard.ops.embedded.port_and_passwords import Address
from taskyard.ops.embedded.supervised_server import Program, SupervisedServer
from taskyard.ops.embedded.waiting import until

__all__ = ["START_WITHIN_S", "EmbeddedServer", "ServerHealth"]

START_WITHIN_S = 60.0
"""Default time for a start: recovery after a crash replays logs, which takes long on slow disks."""
PORT_ATTEMPTS = 5
PORT_TAKEN = ("Address already in use", "Address in use")


@dataclass(frozen=True)
class ServerHealth:
    """One server's answer; `problem` is None if it is healthy."""

    role: str
    pid: int | None
    problem: str | None


class EmbeddedServer(ABC):
    """One embedded server, Valkey or PostgreSQL, with its data in a home folder.

    Subclasses prepare its data, give its command, and ask whether it answers.
    """

    role: str
    name: str

    def __init__(self, home: Home, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.home = home
        self._clock = clock
        self._process: SupervisedServer | None = None
        self._address: Address | None = None

    @abstractmethod
    def _prepare(self, address: Address) -> None:
        """Create what must exist before a first start."""

    @abstractmethod
    def _program(self, address: Address) -> Program:
        """Return the command for this address."""

    @abstractmethod
    def _ask(self, address: Address) -> str | None:
        """Return None if it answers, else why not.

        Raises ServerUnreachable if waiting is useless.
        """

    @abstractmethod
    def _url(self, address: Address) -> str:
        """Return the URL with its password."""

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """The server's own process id (not its supervisor's), None if it does not run."""

    @property
    def log(self) -> Path:
        """The file to which the server writes its log."""
        return self.home.logs / f"{self.name}.log"

    @property
    def address_file(self) -> Path:
        """The file that stores the server's port and passwords between starts."""
        return self.home.path / f"{self.name}.json"

    @property
    def url(self) -> str:
        """The URL of the last start, also readable from another process."""
        address = self._address or Address.load(self.address_file)
        if address is None:
            raise self.unreachable("it was never started")
        return self._url(address)

    @property
    def running(self) -> bool:
        """Whether the server of this object runs."""
        return self._process is not None and self._process.running

    def start(self, within_s: float = START_WITHIN_S) -> None:
        """Start and wait until it answers; does nothing if it runs already.

        Raises ServerUnreachable with the reason, after at most `within_s` seconds per attempt.
        """
        if self.running:
            return
        self.stop()
        address = Address.load(self.address_file) or Address.new()
        address.store(self.address_file)
        self._prepare(address)
        for _ in range(PORT_ATTEMPTS):
            address = address.on_free_port()
            address.store(self.address_file)
            if self._start_at(address, within_s):
                self._address = address
                return
        raise self.unreachable(
            f"other processes took {PORT_ATTEMPTS} free ports before it could bind"
        )

    def _start_at(self, address: Address, within_s: float) -> bool:
        """Return True if it answers, False if another process took the port first."""
        process = self._process = SupervisedServer(self._program(address))
        try:
            until(
                lambda: not process.running or self._ask(address) is None,
                within_s=within_s,
                clock=self._clock,
            )
            problem = self._ask(address) if process.running else "it ended"
        except BaseException:
            self.stop()
            raise
        if problem is None:
            return True
        code = self.stop()
        tail = process.log_tail()
        if any(words in tail for words in PORT_TAKEN):
            return False
        raise self.unreachable(f"{problem}, exit code {code}; its last output: {tail.strip()}")

    def stop(self) -> int | None:
        """Stop without loss and wait; return the exit code, None if it was not started here."""
        process, self._process = self._process, None
        return None if process is None else process.stop()

    def health(self) -> ServerHealth:
        """Ask the server, and return its process and what is wrong with it, if anything."""
        if not self.running or self._address is None:
            return ServerHealth(self.role, None, "it does not run")
        try:
            return ServerHealth(self.role, self.pid, self._ask(self._address))
        except ServerUnreachable as error:
            return ServerHealth(self.role, self.pid, str(error))

    def unreachable(self, cause: object) -> ServerUnreachable:
        """Return the error for this server, without its password."""
        return ServerUnreachable(
            f"embedded {self.role}", str(self.home.path), cause, f"Its log is {self.log}."
        )

    def _inherited(self) -> tuple[int, ...]:
        """Return the descriptor of the home's lock for every server.

        It is free only when all have ended.
        """
        return () if self.home.lock_fd is None else (self.home.lock_fd,)
