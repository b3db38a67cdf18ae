"""What a storm works with: the cluster, its draws, and the notes of what it did."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from chaos.cluster import Cluster
from chaos.messages import held_by, held_messages
from chaos.supervisor import Supervised

__all__ = ["Faults"]


@dataclass
class Faults:
    """What a storm did: the moments at which each fault was over; `stop` ends it.

    `orphans` are jobs that a killed worker held, with the moment: as far as the broker shows them.
    `all_dead_until` are the moments at which workers were started again after all of them had died.
    """

    cluster: Cluster
    rng: random.Random
    stop: threading.Event
    ended_at: list[float] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    orphans: list[tuple[str, float]] = field(default_factory=list)
    all_dead_until: list[float] = field(default_factory=list)
    spans_us: list[tuple[int, int]] = field(default_factory=list)

    @contextmanager
    def span(self) -> Iterator[None]:
        """Note from when to when a fault lasts, in microseconds since 1970."""
        began_us = time.time_ns() // 1000
        yield
        self.spans_us.append((began_us, time.time_ns() // 1000))

    def kill(self, workers: Sequence[Supervised]) -> None:
        """SIGKILL to workers; `orphans` gets the jobs that they held, and when they died."""
        pids = [worker.pid for worker in workers]
        self.cluster.supervisor.kill(workers)
        self.note_orphans(pids)

    def note_orphans(self, pids: Sequence[int]) -> None:
        """Whoever waits for the jobs of these dead workers waits from now on."""
        if self.cluster.setup.broker != "redis":
            return
        held, died_at = held_messages(self.cluster), time.time()
        self.orphans += [(job, died_at) for pid in pids for job in held_by(held, pid)]

    def over(self, what: str, *, all_dead: bool = False) -> None:
        """Note the end of a fault; `all_dead` says that no worker lived until now."""
        self.ended_at.append(time.time())
        if all_dead:
            self.all_dead_until.append(self.ended_at[-1])
        self.told.append(what)

    def hold(self, low_s: float, high_s: float) -> None:
        """Let a fault stand for a drawn time, or until the storm is to end."""
        self.stop.wait(self.rng.uniform(low_s, high_s))

    def pause(self, low_s: float, high_s: float) -> bool:
        """Wait a drawn time; False when the storm is to end."""
        return not self.stop.wait(self.rng.uniform(low_s, high_s))
