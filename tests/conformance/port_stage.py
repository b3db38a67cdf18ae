"""A worker whose ports a test calls: natively or in an installed app, on either broker.

Another pool is another entry of `WAYS`, with what starts its worker and reaches its ports.
"""

from __future__ import annotations

import socket
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import redis

from servers import Servers
from support.legacy import Legacy
from support.legacy_fixtures import BROKERS, legacy_on
from support.waiting import SOON_S, eventually
from support.worker import HANDLERS, Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.settings import Settings

__all__ = [
    "BROKERS",
    "WAYS",
    "InstalledStage",
    "PortStage",
    "RunningWorker",
    "fresh_gate",
    "installed",
    "opened",
]

COMMANDS = "support.port_commands"
# One process, so that what is held waits for it.
OPTIONS = ("--prefetch-multiplier", "4")


class RunningWorker:
    """One worker, by its node's name; `kill` ends all its processes at once."""

    def __init__(self, app: Any, node: str, kill: Callable[[], object]) -> None:
        self._app, self.node, self.kill = app, node, kill

    def call(self, act: str, **arguments: Any) -> Any:
        """The answer of an act of `support.port_commands`."""
        reply = self._ask(act, arguments)
        assert "answer" in reply, reply
        return reply["answer"]

    def refusal_of(self, act: str, **arguments: Any) -> str:
        """What an act says that the pool cannot do."""
        return str(self._ask(act, arguments)["refused"])

    def _ask(self, act: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        replies = self._app.control.broadcast(
            "taskyard_ports",
            {"act": act, "arguments": dict(arguments)},
            reply=True,
            limit=1,
            timeout=SOON_S,
            destination=[f"{self.node}@{socket.gethostname()}"],
        )
        assert replies, f"{self.node} does not answer {act!r}"
        (reply,) = replies[0].values()
        assert isinstance(reply, dict), reply
        return reply

    # -- what is asked often -------------------------------------------------------------------

    def running(self, job_id: str) -> dict[str, Any] | None:
        """The job's line in the list of what runs."""
        return next((each for each in self.call("running") if each["job_id"] == job_id), None)

    def waits_for(self, job_id: str) -> str | None:
        """What the job's message waits for in this worker; None where it is not held."""
        waiting = {each["job_id"]: each["waits_for"] for each in self.call("waiting")}
        found: str | None = waiting.get(job_id)
        return found

    def await_waiting(self, job_id: str, why: str = "process") -> None:
        """Wait until the worker holds the job's message for this reason."""
        eventually(lambda: self.waits_for(job_id) == why, f"{job_id} waits for {why}")

    def await_token(self, job_id: str) -> int:
        """The token of the job's attempt, once it has begun."""

        def token() -> int:
            found = self.running(job_id)
            return int(found["token"] or 0) if found else 0

        return eventually(token, f"an attempt of {job_id}")


class PortStage(ABC):
    """Jobs that wait at a gate, and what becomes of them."""

    name: str
    settings: Settings
    redis: redis.Redis
    servers: Servers

    @abstractmethod
    def worker(self, name: str, *options: str, concurrency: int = 1) -> RunningWorker:
        """Start one more worker."""

    @abstractmethod
    def gated(self, gate: str) -> str:
        """Enqueue a job that waits at a gate and is never tried again; its id."""

    @abstractmethod
    def overtime(self) -> str:
        """Enqueue a job that meets its hard time limit of 1 s and is never tried again; its id."""

    @abstractmethod
    def open(self, gate: str) -> None:
        """Let those at the gate go on, and those that come."""

    @abstractmethod
    def runs(self, job_id: str) -> int:
        """How often it was begun."""

    @abstractmethod
    def unacknowledged(self) -> int:
        """How many messages of this stage's queues the broker has out."""

    # -- the record ----------------------------------------------------------------------------

    def record(self, job_id: str) -> dict[str, str]:
        raw = self.redis.hgetall(self._key(job_id))
        return {name.decode(): value.decode() for name, value in raw.items()}

    def await_state(self, job_id: str, state: str) -> dict[str, str]:
        eventually(
            lambda: self.record(job_id).get("state") == state,
            f"job {job_id} {state}",
            why=lambda: str(self.record(job_id)),
        )
        return self.record(job_id)

    def end_by_an_operator(self, job_id: str, state: str) -> None:
        """As a verb ends a live job: by its record, whose lease it takes away."""
        self.redis.hset(self._key(job_id), "state", state)
        self.redis.hdel(self._key(job_id), "holder", "process", "lease_until")

    def _key(self, job_id: str) -> str:
        return f"{self.settings.namespace}:job:{job_id}"

    def age_heartbeats(self) -> None:
        """Let every owner of messages count as dead, as a killed one does after 10 s."""
        key = f"{self.settings.namespace}:heartbeats"
        for name, value in self.redis.hgetall(key).items():
            _, _, description = value.partition(b" ")
            self.redis.hset(key, name, b"1 " + description)

    def await_begun(self, job_id: str, times: int = 1) -> None:
        eventually(lambda: self.runs(job_id) == times, f"{times} runs of {job_id}")

    def await_quiet(self) -> None:
        """Wait until the broker has nothing out."""
        eventually(lambda: self.unacknowledged() == 0, "every message acknowledged or given back")

    def _unacknowledged_at_rabbitmq(self, part: str) -> int:
        listed = self.servers.rabbitmq.ctl("list_queues", "name", "messages_unacknowledged")
        lines = [line.split("\t") for line in listed.splitlines() if part in line]
        return sum(int(count) for name, count in lines if "celeryev" not in name)


class NativeStage(PortStage):
    """`taskyard.workers.app`."""

    def __init__(self, servers: Servers, broker: str, folder: Path, running: ExitStack) -> None:
        urls = {"broker_url": servers.rabbitmq_url()} if broker == "rabbitmq" else {}
        self.settings = fresh_settings(servers.valkey_url(), **urls)
        self.servers, self._broker, self._folder, self._running = servers, broker, folder, running
        self._harness = ServerHarness(self.settings)
        self.redis = self._harness.redis
        running.callback(self._harness.close)
        # Remote control's own connections.
        running.callback(self._harness.yard.app.close)

    def worker(self, name: str, *options: str, concurrency: int = 1) -> RunningWorker:
        worker = Worker(
            self.settings,
            self._folder,
            queues=("exec",),
            concurrency=concurrency,
            modules=(HANDLERS, COMMANDS),
            options=(*OPTIONS, *options),
            name=name,
        )
        self._running.enter_context(worker.launch())
        worker.await_log(" ready.")
        return RunningWorker(self._harness.yard.app, name, worker.kill_session)

    def gated(self, gate: str) -> str:
        return self._harness.act(gate=gate, policy={"max_retries": 0}).job_id

    def overtime(self) -> str:
        return self._harness.act("hang", "hard_act").job_id

    def open(self, gate: str) -> None:
        self._harness.open_gate(gate)

    def runs(self, job_id: str) -> int:
        return self._harness.runs(job_id)

    def unacknowledged(self) -> int:
        if self._broker == "redis":
            return self._harness.unacked()
        return self._unacknowledged_at_rabbitmq(self.settings.broker_name("exec"))


class InstalledStage(PortStage):
    """An existing app under `install`, its tasks protected."""

    def __init__(self, servers: Servers, broker: str, folder: Path, running: ExitStack) -> None:
        self.servers, self._broker = servers, broker
        self._legacy: Legacy = running.enter_context(legacy_on(broker, servers, folder))
        self.settings, self.redis = self._legacy.settings, self._legacy.redis
        self._running = running

    @cached_property
    def tasks(self) -> Any:
        """The app's tasks in this process."""
        return self._running.enter_context(self._legacy.producer())

    def worker(self, name: str, *options: str, concurrency: int = 1) -> RunningWorker:
        own = ("-c", str(concurrency), "-I", COMMANDS, *OPTIONS, *options)
        process = self._legacy.worker(name, None, *own)
        return RunningWorker(self.tasks.app, f"{name}-{self._legacy.prefix}", process.kill)

    def gated(self, gate: str) -> str:
        return str(self.tasks.gated.delay(gate).id)

    def overtime(self) -> str:
        return str(self.tasks.overtime.delay().id)

    def open(self, gate: str) -> None:
        self._legacy.open_gate(gate, 20)

    def runs(self, job_id: str) -> int:
        return len(self._legacy.notes(f"{job_id}:runs"))

    def unacknowledged(self) -> int:
        if self._broker == "redis":
            held = self.redis.hvals("unacked")
            return sum(self._legacy.prefix.encode() in value for value in held)
        return self._unacknowledged_at_rabbitmq(f"{self._legacy.prefix}.work")


WAYS: Mapping[str, Callable[[Servers, Path, ExitStack], PortStage]] = {
    "native on redis": lambda *given: NativeStage(given[0], "redis", *given[1:]),
    "native on rabbitmq": lambda *given: NativeStage(given[0], "rabbitmq", *given[1:]),
    "installed on redis": lambda *given: InstalledStage(given[0], "redis", *given[1:]),
    "installed on rabbitmq": lambda *given: InstalledStage(given[0], "rabbitmq", *given[1:]),
}


@contextmanager
def opened(way: str, servers: Servers, folder: Path) -> Iterator[PortStage]:
    """A stage without a worker; what is started there ends with it."""
    with ExitStack() as running:
        yield WAYS[way](servers, folder, running)


@contextmanager
def installed(broker: str, servers: Servers, folder: Path) -> Iterator[InstalledStage]:
    """An installed app's, for what only its pools and its tasks have."""
    with ExitStack() as running:
        yield InstalledStage(servers, broker, folder, running)


def fresh_gate() -> str:
    """A name that no other test uses."""
    return f"gate-{uuid.uuid4().hex[:8]}"
