"""The storms: each a sequence of faults, drawn from the seed, while jobs come in."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from chaos.town import Town, await_gone, send

__all__ = ["STORMS", "Faults", "SmallDisk", "Storm"]


@dataclass
class Faults:
    """What a storm did: the moments at which each fault was over; `stop` ends it."""

    town: Town
    rng: random.Random
    stop: threading.Event
    ended_at: list[float] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def over(self, what: str) -> None:
        """Note the end of a fault."""
        self.ended_at.append(time.time())
        self.told.append(what)

    def pause(self, low_s: float, high_s: float) -> bool:
        """Wait a drawn time; False when the storm is to end."""
        return not self.stop.wait(self.rng.uniform(low_s, high_s))


@dataclass(frozen=True, slots=True)
class Storm:
    """`blow` is called again and again with drawn waits between; `brokers` are those it is for."""

    blow: Callable[[Faults], None]
    wait_s: tuple[float, float]
    brokers: tuple[str, ...] = ("redis", "rabbitmq")
    proxied: bool = False
    shifts_s: tuple[float, float] = (0.0, 0.0)
    small_disk: bool = False


def _kill_child(faults: Faults) -> None:
    children = [pid for worker in faults.town.workers for pid in worker.children()]
    if children:
        send([faults.rng.choice(children)], signal.SIGKILL)
        faults.over("a child killed")


def _kill_worker(faults: Faults) -> None:
    """One of them or all at once, and a supervisor that starts them again."""
    workers = faults.town.workers
    killed = faults.rng.sample(workers, faults.rng.randint(1, len(workers)))
    for worker in killed:
        worker.kill_session()
    for worker in killed:
        worker.wait()
    faults.town.mend()
    faults.over(f"{len(killed)} workers killed")


def _kill_servant(faults: Faults) -> None:
    servant = faults.rng.choice(faults.town.servants)
    servant.kill()
    faults.town.mend()
    faults.over(f"{servant.name} killed")


def _restart(server: str) -> Callable[[Faults], None]:
    def blow(faults: Faults) -> None:
        pids = faults.town.pids(server)
        send(pids, signal.SIGKILL)
        await_gone(pids)
        faults.stop.wait(faults.rng.uniform(0.0, 2.0))
        faults.town.start(server)
        faults.town.mend()
        faults.over(f"{server} killed and started")

    return blow


def _freeze(server: str) -> Callable[[Faults], None]:
    def blow(faults: Faults) -> None:
        pids = faults.town.pids(server)
        send(pids, signal.SIGSTOP)
        try:
            # Longer than the clients' patience of five seconds, sometimes.
            faults.stop.wait(faults.rng.uniform(1.0, 8.0))
        finally:
            send(pids, signal.SIGCONT)
        faults.over(f"{server} paused")

    return blow


def _cut(faults: Faults) -> None:
    name = faults.rng.choice(sorted(faults.town.proxies))
    proxy = faults.town.proxies[name]
    match faults.rng.choice(["cut", "delay", "swallow"]):
        case "cut":
            faults.over(f"{proxy.cut()} connections to {name} cut")
        case "delay":
            proxy.delay_s = faults.rng.uniform(0.02, 0.2)
            faults.stop.wait(faults.rng.uniform(1.0, 3.0))
            proxy.delay_s = 0.0
            faults.over(f"{name} delayed")
        case _:
            proxy.swallow()
            faults.stop.wait(faults.rng.uniform(1.0, 7.0))
            proxy.flow()
            faults.over(f"{name} mute")


def _fill_disk(faults: Faults) -> None:
    """The data folder of Redis has no room left for a while."""
    folder = faults.town.redis.folder
    ballast = folder / "ballast"
    free = shutil.disk_usage(folder).free
    with ballast.open("wb") as out:
        try:
            os.posix_fallocate(out.fileno(), 0, max(free - 4096, 1))
            while True:
                out.seek(0, os.SEEK_END)
                out.write(b"x" * 512)
                out.flush()
        except OSError:
            pass  # full, as it should be
    faults.stop.wait(faults.rng.uniform(2.0, 5.0))
    ballast.unlink()
    faults.over("the disk of Redis full")


def _wrong_clocks(faults: Faults) -> None:
    """Nothing more to do: one worker is an hour ahead, the other one behind, all the time."""
    faults.over("clocks wrong")


STORMS: Final[Mapping[str, Storm]] = {
    "kill children": Storm(_kill_child, (0.3, 1.0)),
    "kill workers": Storm(_kill_worker, (1.0, 3.0)),
    "kill mirror and relay": Storm(_kill_servant, (1.0, 2.5)),
    "restart Redis": Storm(_restart("redis"), (0.5, 2.5)),
    "pause Redis": Storm(_freeze("redis"), (0.5, 3.0)),
    "restart RabbitMQ": Storm(_restart("rabbitmq"), (1.0, 4.0), brokers=("rabbitmq",)),
    "pause RabbitMQ": Storm(_freeze("rabbitmq"), (1.0, 3.0), brokers=("rabbitmq",)),
    "restart Postgres": Storm(_restart("postgres"), (0.5, 2.5)),
    "pause Postgres": Storm(_freeze("postgres"), (1.0, 3.0)),
    "cut and delay connections": Storm(_cut, (0.5, 1.5), proxied=True),
    "fill the disk of Redis": Storm(_fill_disk, (1.0, 3.0), small_disk=True),
    "wrong clocks": Storm(_wrong_clocks, (1.0, 5.0), shifts_s=(3600.0, -3600.0)),
}


class SmallDisk:
    """A file system of 64 MiB in memory at `folder`; `reason` says why there can be none."""

    SIZE: Final = "64m"

    def __init__(self, folder: Path) -> None:
        self.folder, self.reason = folder, ""

    def mount(self) -> bool:
        """Whether it stands."""
        self.folder.mkdir(parents=True, exist_ok=True)
        words = ["mount", "-t", "tmpfs", "-o", f"size={self.SIZE}", "tmpfs", str(self.folder)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
        except OSError as error:
            self.reason = str(error)
            return False
        self.reason = done.stderr.strip()
        return done.returncode == 0

    def unmount(self) -> None:
        """Take it away."""
        subprocess.run(["umount", str(self.folder)], capture_output=True, check=False)  # noqa: S603, S607 - fixed words
