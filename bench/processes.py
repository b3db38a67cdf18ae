"""Workers and clients as processes of their own, and what the kernel knows of them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import redis
from kombu import Connection

from bench.contenders import Contender

__all__ = ["Bench", "Workers"]

ROOT = Path(__file__).resolve().parents[1]
_TICKS = os.sysconf("SC_CLK_TCK")
# A million jobs take two minutes on two cores.
_SEND_WITHIN_S = 400.0


class Workers:
    """The running processes of one contender."""

    def __init__(self, started: list[subprocess.Popen[bytes]]) -> None:
        self.started = started

    def pids(self) -> list[int]:
        """Every process, parents before their children."""
        found = [process.pid for process in self.started]
        for pid in found:
            found.extend(_children(pid))
        return found

    def ended(self) -> bool:
        """Whether one of them is no more."""
        return any(process.poll() is not None for process in self.started)

    def pause(self) -> None:
        """Stop them as they are; they neither run nor notice."""
        self._signal(signal.SIGSTOP)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let paused workers run."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.pause()

    def kill(self) -> None:
        """End them at once, paused or not."""
        self._signal(signal.SIGKILL)
        for process in self.started:
            process.wait()

    def _signal(self, number: signal.Signals) -> None:
        # Each was started as the leader of a group, which its children share.
        for process in self.started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    def pss_kib(self) -> int:
        """Memory, each shared page counted in parts."""
        return sum(_memory_kib(pid, "Pss:") for pid in self.pids())

    def main_rss_kib(self) -> int:
        """Memory of the first main process, shared pages included."""
        return _memory_kib(self.started[0].pid, "Rss:")

    def cpu_s(self) -> list[float]:
        """Processor seconds so far, a number for each of `pids`."""
        return [_cpu_s(pid) for pid in self.pids()]


@dataclass(frozen=True)
class Bench:
    """Where contenders run: one Redis, where wanted one RabbitMQ, one folder for what is kept."""

    url: str
    folder: Path
    rabbitmq_url: str | None = None

    @property
    def environments(self) -> Path:
        """The rivals' environments."""
        return self.folder / "bench-envs"

    @contextmanager
    def workers(
        self, contender: Contender, variables: Mapping[str, str] | None = None
    ) -> Iterator[Workers]:
        """Start a contender's worker processes; they are killed at the end."""
        argv = [contender.python(self.environments), *contender.argv]
        log = self.folder / "bench-logs" / f"{contender.name.replace(' ', '-')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            started = [
                subprocess.Popen(  # noqa: S603 - our own list
                    argv,
                    env={**self.environment(contender), **(variables or {})},
                    cwd=self.folder,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
                for _ in range(contender.copies)
            ]
        workers = Workers(started)
        try:
            yield workers
        finally:
            workers.kill()

    def send(self, contender: Contender, count: int, body: str, size: int, how: str) -> float:
        """Enqueue in a process of its own; returns the jobs enqueued in a second."""
        return self.send_as({}, contender, count, body, size, how)

    def send_as(
        self,
        variables: Mapping[str, str],
        contender: Contender,
        count: int,
        body: str,
        size: int,
        how: str,
    ) -> float:
        """`send` with more variables."""
        argv = [contender.python(self.environments), "-m", "bench.apps.send", contender.app]
        argv += [how, str(count), body, str(size)]
        done = subprocess.run(  # noqa: S603 - our own list
            argv,
            env={**self.environment(contender), **variables},
            cwd=self.folder,
            check=True,
            stdout=subprocess.PIPE,
            timeout=_SEND_WITHIN_S,
        )
        return (count - 10) / float(done.stdout)

    @contextmanager
    def gauge(self, contender: Contender) -> Iterator[Callable[[], int]]:
        """How many of a contender's jobs no worker has taken yet, asked as often as wanted."""
        if contender.rabbit_queue is not None:
            with Connection(self.broker_of(contender)) as opened:
                channel, queue = opened.default_channel, contender.rabbit_queue
                yield lambda: int(channel.queue_declare(queue, passive=True).message_count)
        else:
            with self.client(contender) as client:
                yield lambda: contender.backlog(client)

    def client(self, contender: Contender) -> redis.Redis:
        """A client of the contender's own database."""
        return redis.Redis.from_url(self.redis_of(contender))

    def empty(self) -> None:
        """Forget everything on the server."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def redis_of(self, contender: Contender) -> str:
        """The server's URL with the contender's database: no two share their keys."""
        return urlsplit(self.url)._replace(path=f"/{contender.database}").geturl()

    def broker_of(self, contender: Contender) -> str:
        """Where its messages go; raises ValueError for RabbitMQ without one."""
        if contender.rabbit_queue is None:
            return self.redis_of(contender)
        if self.rabbitmq_url is None:
            raise ValueError(f"{contender.name} needs a RabbitMQ, this bench has none")
        return self.rabbitmq_url

    def environment(self, contender: Contender) -> dict[str, str]:
        """The variables of a contender's processes."""
        records, broker = self.redis_of(contender), self.broker_of(contender)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("TASKYARD_")}
        return {
            **kept,
            "BENCH_REDIS_URL": records,
            "BENCH_BROKER_URL": broker,
            "RQ_REDIS_URL": records,
            "TASKYARD_REDIS_URL": records,
            "TASKYARD_BROKER_URL": broker,
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",
        }


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8")
    except OSError:
        return []
    return [int(child) for child in text.split()]


def _memory_kib(pid: int, kind: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8").splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith(kind))


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS
