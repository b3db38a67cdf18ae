"""Workers and clients as processes of their own, and what the kernel knows of them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import redis

from bench.contenders import Contender

__all__ = ["Bench", "Workers"]

ROOT = Path(__file__).resolve().parents[1]
_TICKS = os.sysconf("SC_CLK_TCK")


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

    def pss_kib(self) -> int:
        """Memory, each shared page counted in parts."""
        return sum(_pss_kib(pid) for pid in self.pids())

    def cpu_s(self) -> list[float]:
        """Processor seconds so far, a number for each of `pids`."""
        return [_cpu_s(pid) for pid in self.pids()]


class Bench:
    """Where contenders run: one server, one folder of environments."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.environments = folder / "bench-envs"

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
                    env={**self.environment(), **(variables or {})},
                    cwd=self.folder,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
                for _ in range(contender.copies)
            ]
        try:
            yield Workers(started)
        finally:
            for process in started:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

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
            env={**self.environment(), **variables},
            cwd=self.folder,
            check=True,
            stdout=subprocess.PIPE,
        )
        return (count - 10) / float(done.stdout)

    def empty(self) -> None:
        """Forget everything on the server."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def environment(self) -> dict[str, str]:
        """The variables of every process."""
        urls = dict.fromkeys(_URLS, self.url)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("TASKYARD_")}
        return {**kept, **urls, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}


_URLS = ("BENCH_REDIS_URL", "RQ_REDIS_URL", "TASKYARD_BROKER_URL", "TASKYARD_REDIS_URL")


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8")
    except OSError:
        return []
    return [int(child) for child in text.split()]


def _pss_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8").splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS
