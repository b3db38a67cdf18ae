"""The servers and processes of the demonstration in a temporary home, removed at the end."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from taskyard import database
from taskyard.client import Taskyard
from taskyard.clock import SYSTEM_CLOCK
from taskyard.errors import ServerUnreachable, TaskyardError
from taskyard.ops.cli.env import TRUST_LOCAL
from taskyard.ops.demo.failure import DemoFailed
from taskyard.ops.demo.sample_shop import DemoShop
from taskyard.ops.embedded import environment_of
from taskyard.ops.embedded.supervised_server import Program, SupervisedServer
from taskyard.ops.embedded.waiting import until
from taskyard.settings import load

__all__ = ["LONGEST_S", "Stage", "open_stage"]

LONGEST_S: Final = 52.0
"""Limit for all steps together; cleaning up takes some seconds more, and a minute is promised."""
_START_S: Final = 25.0
_DRAIN_S: Final = 5.0


@dataclass(slots=True)
class Stage:
    """The servers and processes for the demonstration's steps.

    `until` fails the demonstration if a condition is not met in time.
    """

    folder: Path
    started_s: float
    up: SupervisedServer
    shop: DemoShop

    @property
    def log(self) -> Path:
        """The log file of mirror, relay and workers."""
        return self.folder / "taskyard.log"

    @property
    def home(self) -> Path:
        """Where the servers keep their data."""
        return self.folder / "home"

    @property
    def elapsed_s(self) -> float:
        """Seconds since the demonstration began."""
        return SYSTEM_CLOCK.monotonic_s() - self.started_s

    def until(self, what: str, condition: Callable[[], bool], within_s: float) -> None:
        """Wait for `condition`; raises `DemoFailed`, which names `what` did not happen."""
        timeout_s = max(0.0, min(within_s, LONGEST_S - self.elapsed_s))
        try:
            reached = until(
                lambda: not self.up.running or condition(), within_s=timeout_s, every_s=0.1
            )
        except ServerUnreachable as error:
            raise DemoFailed(f"{what} did not happen: {error}", self.log) from error
        if not self.up.running:
            raise DemoFailed(f"`taskyard up` ended by itself, so {what} cannot happen", self.log)
        if not reached:
            raise DemoFailed(f"{what} did not happen within {timeout_s:.0f} s", self.log)

    def connect(self) -> tuple[Taskyard, Engine]:
        """Wait for the servers and the schema; return a client and a database."""
        self.until("the start of the servers", self._schema_is_there, _START_S)
        self.until("the shop's answer", lambda: self.shop.url is not None, _START_S)
        variables = {**environment_of(self.home), **TRUST_LOCAL}
        settings = load(variables, self.folder).settings
        return Taskyard(settings), database.engine(settings.need_database_url())

    def _schema_is_there(self) -> bool:
        try:
            database.check(environment_of(self.home)["TASKYARD_DATABASE_URL"])
        except TaskyardError:
            return False
        return True


@contextmanager
def open_stage(concurrency: int = 1) -> Iterator[Stage]:
    """Start everything; at the end stop it, and remove the folder unless something failed."""
    started_s = SYSTEM_CLOCK.monotonic_s()
    folder = Path(tempfile.mkdtemp(prefix="taskyard-demo-"))
    try:
        with DemoShop(folder) as shop:
            up = SupervisedServer(_up(folder, concurrency))
            try:
                yield Stage(folder, started_s, up, shop)
            finally:
                up.stop()
    except DemoFailed:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _up(folder: Path, concurrency: int) -> Program:
    """Start `taskyard up` without the settings of this shell."""
    words = ["up", "--builtin", "--concurrency", str(concurrency), "--drain", str(_DRAIN_S)]
    inherited = {name: value for name, value in os.environ.items() if name[:9] != "TASKYARD_"}
    return Program(
        argv=[sys.executable, "-m", "taskyard.ops.cli", *words],
        log=folder / "taskyard.log",
        env={**inherited, "TASKYARD_HOME": str(folder / "home")},
        cwd=folder,
        stop_signals=(signal.SIGINT,),
        grace_s=_DRAIN_S * 2,
    )
