"""Whether a worker's main process grows with the jobs it has served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bench.contenders import TASKYARD
from bench.processes import Bench
from bench.throughput import await_level

__all__ = ["Grown", "grown"]

# The first jobs load what every later one uses.
_WARM: Final = 0.95
_STEPS: Final = 20


@dataclass(frozen=True)
class Grown:
    """MiB (RSS) of the main process when it was warm, and what it has more at the end."""

    jobs: int
    warm_mib: float
    growth_mib: float


def grown(bench: Bench, count: int) -> Grown:
    """Serve `count` quick jobs, each with the default time limit of 300 s."""
    bench.empty()
    bench.send(TASKYARD, count, "noop", 10, "send_many")
    with bench.workers(TASKYARD) as workers, bench.gauge(TASKYARD) as left:
        await_level(TASKYARD, left, int(count * _WARM), workers)
        warm = workers.main_rss_kib()
        for step in range(_STEPS - 1, -1, -1):
            await_level(TASKYARD, left, int(count * _WARM * step / _STEPS), workers)
        end = workers.main_rss_kib()
    bench.empty()
    return Grown(count, round(warm / 1024, 1), round((end - warm) / 1024, 1))
