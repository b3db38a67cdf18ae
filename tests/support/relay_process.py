"""A relay in a process of its own, with seams at which a test kills it.

A test arms a seam as those of workers; `python -m support.relay_process` is the process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support import seams
from support.seams import FOLDER_VARIABLE, die_at
from support.worker import TESTS, environment_of
from taskyard import audit, outbox
from taskyard.broker import AmqpPublisher, RedisPublisher
from taskyard.database import opened
from taskyard.gate import Gate
from taskyard.install import AnyQueuePublisher
from taskyard.records import OperatorVerbs, Records
from taskyard.relay import Relay, carry_out_verb
from taskyard.relay import relay as relay_module
from taskyard.settings import Settings, load
from taskyard.store import connect

__all__ = ["SEAMS", "RelayProcess"]

_CUTS: dict[str, tuple[Any, str]] = {
    "claim": (outbox, "claim"),
    "replay_many": (Records, "replay_many"),
    "publish at Redis": (RedisPublisher, "publish_many"),
    "publish at RabbitMQ": (AmqpPublisher, "publish_many"),
    "verbs": (OperatorVerbs, "many"),
    "close_letters": (carry_out_verb, "close_letters"),
    "finish_many": (outbox, "finish_many"),
    "answer_many": (audit, "answer_many"),
    "carry_out": (relay_module, "carry_out"),
    "transaction": (Relay, "_transact"),
}
SEAMS = tuple(f"{when} {name}" for name in _CUTS for when in ("before", "after"))
seams.NAMES.update(_CUTS)


class RelayProcess:
    """One relay; it is started again when it was killed, as a supervisor would."""

    def __init__(self, settings: Settings, folder: Path, name: str) -> None:
        self._settings, self._folder, self._name = settings, folder, name
        self._process: subprocess.Popen[bytes] | None = None
        self.deaths = 0

    @property
    def seams(self) -> Path:
        """The folder of the seams that are armed for this process."""
        return self._folder / self._name

    @property
    def log(self) -> str:
        """All that it has written."""
        return (self._folder / f"{self._name}.log").read_text("utf-8", "replace")

    def start(self) -> None:
        """Start it."""
        self.seams.mkdir(parents=True, exist_ok=True)
        variables = {**os.environ, **environment_of(self._settings)}
        variables |= {FOLDER_VARIABLE: str(self.seams), "PYTHONPATH": str(TESTS)}
        with (self._folder / f"{self._name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "support.relay_process"],
                env=variables,
                stdout=log,
                stderr=log,
            )

    def revive(self) -> bool:
        """Start it again if it was killed; return whether it was. Fails after any other end."""
        assert self._process is not None
        code = self._process.poll()
        if code is None:
            return False
        assert code == -signal.SIGKILL, self.log[-4000:]
        self.deaths += 1
        self.start()
        return True

    def stop(self) -> None:
        """Kill it, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)


def _cut(owner: Any, attribute: str, name: str) -> None:
    original: Callable[..., Any] = getattr(owner, attribute)

    def cut(*arguments: Any, **keywords: Any) -> Any:
        die_at(f"before {name}")
        answer = original(*arguments, **keywords)
        die_at(f"after {name}")
        return answer

    setattr(owner, attribute, cut)


def _main() -> None:
    for name, (owner, attribute) in _CUTS.items():
        _cut(owner, attribute, name)
    settings = load().settings
    client = connect(settings.need_redis_url())
    records = Records(client, settings)
    publisher = AnyQueuePublisher(settings, records)
    with opened(settings.need_database_url()) as engine:
        gate = Gate(settings.namespace, client)
        relay = Relay(settings, engine, records, publisher, gate, queues=publisher)
        relay.run(threading.Event())


if __name__ == "__main__":
    _main()
