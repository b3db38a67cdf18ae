"""Workers of an installed Celery app, and the producer that publishes for them."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from chaos.app import QUEUES, TASK, Configuration, make_app
from chaos.setups import Setup
from chaos.supervisor import Daemon, Supervised
from taskyard.settings import Settings

__all__ = ["InstalledFleet"]

_IDS: Final = uuid.UUID("6f1c1f0e-5d0b-4b5e-9b39-6b1d0c7e9a11")


class InstalledFleet:
    """`variables` are a worker's environment; `folder` is where workers write."""

    queues: tuple[str, ...] = QUEUES
    job_type: str = TASK

    def __init__(
        self, setup: Setup, settings: Settings, folder: Path, variables: Mapping[str, str]
    ) -> None:
        self._folder, self._variables = folder, variables
        made = Configuration(
            settings.need_broker_url(), settings.need_redis_url(), setup.transport, setup.admit
        )
        self._configuration = made
        # A producer that waits for no result has no backend: one would subscribe to each.
        self._app = make_app(Configuration(made.broker, "", made.transport, made.admit), settings)
        self._task = self._app.tasks[TASK]
        self._published: set[int] = set()

    def worker(self, number: int, concurrency: int, shift_s: float) -> Supervised:
        """A worker that is not started yet."""
        assert not shift_s, "clocks are shifted in native workers alone"
        argv = [sys.executable, "-m", "celery", "-A", "chaos.worker_app", "worker"]
        argv += [
            "-Q",
            ",".join(QUEUES),
            "-c",
            str(concurrency),
            "-n",
            f"worker-{number}@%h",
            "-l",
            "INFO",
        ]
        argv += ["--without-gossip", "--without-mingle"]
        environment = {**self._variables, **self._configuration.variables()}
        return Daemon(f"worker-{number}", argv, environment, self._folder)

    def send(self, batch: Mapping[int, str]) -> list[str]:
        """Publish jobs, the kind of each by its number; their ids.

        What was published is not published again, when a batch is sent again after an error.
        """
        for number, kind in batch.items():
            if number not in self._published:
                arguments = {"number": number, "kind": kind}
                self._task.apply_async(kwargs=arguments, task_id=_id_of(number))
                self._published.add(number)
        return [_id_of(number) for number in batch]

    def close(self) -> None:
        """Close the producer's connections."""
        self._app.close()


def _id_of(number: int) -> str:
    """As a service that keeps its own ids: the same for every attempt to publish a job."""
    return str(uuid.uuid5(_IDS, str(number)))
