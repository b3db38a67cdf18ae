"""The folder that holds the embedded servers' data: where it is, its layout, its lock.

Layout, with permissions 0700 or 0600::

    lock             held while anything of a stack runs; its text is the owner's pid
    valkey.json      port and password, kept so that URLs stay the same across restarts
    postgres.json    the same, with the administrator's password
    shared.json      variables that whoever uses the running servers needs too
    valkey/          append-only file and configuration
    postgres/data/   the cluster
    log/             one file a server
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.errors import InvalidSettings, TaskyardError
from taskyard.ops.embedded.waiting import until

__all__ = ["HOME_VARIABLE", "Home", "HomeInUse", "default_home"]

HOME_VARIABLE = "TASKYARD_HOME"
PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
WIND_DOWN_S = 40.0
"""How long a new stack waits for the servers of a killed one, which end within their grace time."""


class HomeInUse(TaskyardError):
    """Another stack runs in this home; `pid` is its process, None if it could not be read."""

    exit_code = 5

    def __init__(self, home: Path, pid: int | None) -> None:
        self.home, self.pid = home, pid
        owner = "another process" if pid is None else f"process {pid}"
        super().__init__(
            f"{home} is in use by {owner}: each stack needs its own home. Stop the other one, or "
            f"set {HOME_VARIABLE} to another folder."
        )


def default_home(environ: Mapping[str, str], folder: Path) -> Path:
    """Return `TASKYARD_HOME` if set, else `.taskyard` under `folder`, the current one.

    As with `.venv`, each project gets its own servers, deleting the folder deletes everything, and
    it keeps itself out of git. One folder per user would mix the jobs of all projects.
    """
    chosen = environ.get(HOME_VARIABLE, "")
    return Path(chosen).expanduser() if chosen else folder / ".taskyard"


class Home:
    """One folder with the embedded servers' data; `open` creates it, `lock` claims it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.valkey = path / "valkey"
        self.postgres = path / "postgres"
        self.logs = path / "log"
        self._lock_file = path / "lock"
        self._shared_file = path / "shared.json"
        self._lock_fd: int | None = None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Create the folder, or check that an existing one is a home or empty.

        Raises InvalidSettings for any other folder, since its permissions must not be changed.
        """
        home = cls(path.expanduser().absolute())
        home._claim_folder()
        for folder in (home.valkey, home.postgres, home.logs):
            folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        (home.path / ".gitignore").write_text("*\n")
        return home

    def _claim_folder(self) -> None:
        self.path.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        if not self._lock_file.exists() and any(self.path.iterdir()):
            raise InvalidSettings(
                f"{self.path} is neither empty nor a Taskyard home: the embedded servers need a "
                f"folder of their own. Set {HOME_VARIABLE} to another one."
            )
        self.path.chmod(PRIVATE_FOLDER)
        self._lock_file.touch(mode=PRIVATE_FILE)

    @property
    def lock_fd(self) -> int | None:
        """The descriptor of the held lock.

        Every server inherits it, so a free lock means nothing runs.
        """
        return self._lock_fd

    def lock(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        """Claim the home; wait only for the servers of an owner that was killed.

        Raises HomeInUse, which names the owner's pid.
        """
        if self._lock_fd is not None:
            raise HomeInUse(self.path, os.getpid())
        lock_fd = os.open(self._lock_file, os.O_RDWR)
        if not until(lambda: self._take(lock_fd), within_s=WIND_DOWN_S, clock=clock):
            os.close(lock_fd)
            raise HomeInUse(self.path, self._owner())
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, str(os.getpid()).encode(), 0)
        self._lock_fd = lock_fd

    def _take(self, lock_fd: int) -> bool:
        """Return True once this process has the lock; raise while the lock's owner lives."""
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = self._owner()
            if owner is not None and _alive(owner):
                os.close(lock_fd)
                raise HomeInUse(self.path, owner) from None
            return False
        return True

    def unlock(self) -> None:
        """Release the home, also for forked children that share the descriptor."""
        if self._lock_fd is not None:
            os.ftruncate(self._lock_fd, 0)
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)
            os.close(self._lock_fd)
            self._lock_fd = None

    def share(self, variables: Mapping[str, str]) -> None:
        """Store `variables` for every process that uses the servers of this home."""
        self._shared_file.write_text(json.dumps(dict(variables)), "utf-8")

    def shared(self) -> dict[str, str]:
        """Return the variables of the last start; empty before the first."""
        if not self._shared_file.exists():
            return {}
        variables: dict[str, str] = json.loads(self._shared_file.read_text("utf-8"))
        return variables

    def owner(self) -> int | None:
        """Return the living process that runs a stack here, None if there is none."""
        pid = self._owner() if self._lock_file.exists() else None
        return pid if pid is not None and _alive(pid) and self._is_locked() else None

    def _owner(self) -> int | None:
        text = self._lock_file.read_text().strip()
        return int(text) if text.isdecimal() else None

    def _is_locked(self) -> bool:
        probe = os.open(self._lock_file, os.O_RDWR)
        try:
            fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(probe)
        return False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
