"""The legacy app's processes and what it leaves behind."""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from support.legacy_broker import Broker, RabbitBroker, RedisBroker
from support.preloaded import Running, launch
from support.waiting import eventually
from support.worker import TESTS, environment_of
from taskyard.settings import Settings
from taskyard.wire.letter_envelope import Letter

__all__ = ["Legacy", "Process"]

MODULE = "support.legacy_app.app"


@dataclass
class Process:
    """One `celery -A support.legacy_app.app …`."""

    argv: list[str]
    environment: dict[str, str]
    log_file: Path
    _process: Running | None = None

    def start(self) -> None:
        with self.log_file.open("ab") as log:
            self._process = launch(
                "celery",
                ["-A", MODULE, *self.argv],
                environment=self.environment,
                folder=self.log_file.parent,
                log=log,
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace") if self.log_file.exists() else ""

    def await_log(self, text: str, times: int = 1) -> None:
        eventually(
            lambda: self.log.count(text) >= times or self.ended, text, why=lambda: self.log[-6000:]
        )
        assert not self.ended, self.log[-6000:]

    @property
    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def terminate(self) -> None:
        """End it warmly and wait."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(40)

    def kill(self) -> None:
        """End it and its children at once."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(20)


@dataclass
class Legacy:
    """The app in one mode, on one broker, under a prefix of its own."""

    mode: str
    broker: str
    backend: str
    settings: Settings
    folder: Path
    notes_url: str = ""
    # As `install` takes it: None decides by itself.
    transport: bool | None = None
    admit: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    tls: dict[str, Any] | None = None
    prefix: str = field(default_factory=lambda: f"l{uuid.uuid4().hex[:10]}")
    processes: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.notes_url = self.notes_url or self.settings.need_redis_url()
        self.redis = redis.Redis.from_url(self.notes_url)
        rabbit = self.broker.startswith("amqp")
        self.at_broker: Broker = (
            RabbitBroker(self.settings) if rabbit else RedisBroker(self.settings)
        )

    # -- processes -----------------------------------------------------------------------------

    def environment(self, mode: str | None = None, transport: bool | None = None) -> dict[str, str]:
        transport = self.transport if transport is None else transport
        own = {k: v for k, v in os.environ.items() if not k.startswith(("TASKYARD_", "LEGACY_"))}
        return {
            **own,
            "PYTHONPATH": f"{TESTS}:{os.environ.get('PYTHONPATH', '')}",
            "LEGACY_MODE": mode or self.mode,
            "LEGACY_TRANSPORT": {None: "", True: "own", False: "kombu"}[transport],
            "LEGACY_ADMIT": "1" if self.admit else "",
            "LEGACY_PREFIX": self.prefix,
            "LEGACY_OPTIONS": json.dumps(self.options),
            "LEGACY_TLS": json.dumps(self.tls),
            "LEGACY_BROKER": self.broker,
            "LEGACY_BACKEND": self.backend,
            "LEGACY_NOTES": self.notes_url,
            **environment_of(self.settings),
        }

    def worker(
        self,
        name: str = "worker",
        mode: str | None = None,
        *options: str,
        transport: bool | None = None,
    ) -> Process:
        options = ("--without-gossip", "--without-mingle", *options)
        process = self.starting(name, mode, *options, transport=transport)
        process.await_log(" ready.")
        return process

    def starting(
        self, name: str, mode: str | None, *options: str, transport: bool | None = None
    ) -> Process:
        """A worker that is not waited for, with `options` alone."""
        # On RabbitMQ a node's mailbox is its own: two apps' workers may not share a name there.
        argv = ["worker", "-n", f"{name}-{self.prefix}@%h", "-c", "2", "-l", "INFO"]
        return self._launch(name, [*argv, *options], mode, transport)

    def beat(self, name: str) -> Process:
        schedule = str(self.folder / f"{name}.schedule")
        argv = ["beat", "-l", "INFO", "-s", schedule, "--pidfile=", "--max-interval", "1"]
        return self._launch(name, argv, None)

    def _launch(
        self, name: str, argv: list[str], mode: str | None, transport: bool | None = None
    ) -> Process:
        process = Process(argv, self.environment(mode, transport), self.folder / f"{name}.log")
        process.start()
        self.processes.append(process)
        return process

    # -- the producer's side -------------------------------------------------------------------

    @contextmanager
    def producer(self) -> Iterator[Any]:
        """The app's tasks in this process, freshly imported in this mode."""
        before = dict(os.environ)
        os.environ.update({k: v for k, v in self.environment().items() if k.isupper()})
        for name in [name for name in sys.modules if name.startswith("support.legacy_app")]:
            del sys.modules[name]
        try:
            module = importlib.import_module(MODULE)
            yield importlib.import_module("support.legacy_app.tasks")
            # Celery's results unsubscribe when they are collected, which needs the server.
            gc.collect()
            module.app.close()
        finally:
            os.environ.clear()
            os.environ.update(before)

    # -- what is left behind -------------------------------------------------------------------

    def notes(self, name: str) -> list[str]:
        return [raw.decode() for raw in self.redis.lrange(f"{self.prefix}:note:{name}", 0, -1)]

    def await_notes(self, name: str, count: int) -> list[str]:
        eventually(
            lambda: len(self.notes(name)) >= count, f"{count} notes of {name}", why=self.logs
        )
        return self.notes(name)

    def open_gate(self, name: str, times: int = 1) -> None:
        for _ in range(times):
            self.redis.rpush(f"{self.prefix}:gate:{name}", "open")

    def record(self, job_id: str) -> dict[str, str]:
        key = f"{self.settings.namespace}:job:{job_id}".encode("utf-8", "surrogatepass")
        raw = self.redis.hgetall(key)
        return {k.decode(): v.decode("utf-8", "replace") for k, v in raw.items()}

    def await_state(self, job_id: str, state: str) -> dict[str, str]:
        eventually(
            lambda: self.record(job_id).get("state") == state,
            f"job {job_id} {state}",
            why=lambda: f"{self.record(job_id)}\n{self.logs()}",
        )
        return self.record(job_id)

    def events(self, job_id: str) -> list[str]:
        entries = self.redis.xrange(f"{self.settings.namespace}:lifecycle")
        return [f[b"event"].decode() for _, f in entries if f.get(b"job", b"").decode() == job_id]

    def letters(self, job_id: str) -> list[Letter]:
        """The letters of one job that wait for the mirror."""
        return [letter for letter in self.at_broker.letters() if letter.job_id == job_id]

    def await_letter(self, job_id: str) -> Letter:
        """The only letter of a job, once it is there."""
        eventually(lambda: self.letters(job_id), f"a letter of {job_id}", why=self.logs)
        (letter,) = self.letters(job_id)
        return letter

    def logs(self) -> str:
        return "\n".join(f"--- {p.log_file.name}\n{p.log[-5000:]}" for p in self.processes)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        for pattern in (f"{self.prefix}*", f"*{self.settings.namespace}*"):
            keys = list(self.redis.scan_iter(pattern, count=1000))
            if keys:
                self.redis.delete(*keys)
        self.at_broker.close()
        self.redis.close()
