"""The figures that stand at the top of bench.json, and what is promised of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["FIGURES", "Promise", "kept", "not_kept"]


@dataclass(frozen=True)
class Promise:
    """A figure's bounds; without any it is shown and nothing is promised."""

    least: float | None = None
    most: float | None = None

    def __str__(self) -> str:
        words = [f"at least {self.least:g}"] if self.least is not None else []
        words += [f"at most {self.most:g}"] if self.most is not None else []
        return ", ".join(words)

    @property
    def made(self) -> bool:
        """Whether there is a bound at all."""
        return self.least is not None or self.most is not None


FIGURES: Final[dict[str, Promise]] = {
    "throughput_vs_celery": Promise(1.4),
    "throughput_vs_naive_lock": Promise(2.0),
    "enqueue_vs_celery": Promise(1.0),
    "enqueue_many_vs_celery": Promise(8),
    "aenqueue_per_s": Promise(8000),
    "aenqueue_p99_ms": Promise(None, 100),
    "aenqueue_loopback_per_s": Promise(8000),
    "aenqueue_loopback_p99_ms": Promise(),
    "awaited_commands_per_s": Promise(None, 100),
    "worker_memory_vs_celery": Promise(None, 1.10),
    "worker_growth_mib": Promise(None, 10),
    "redis_round_trips_per_job": Promise(1.95, 2.05),
    "backlog_flatness": Promise(0.90),
    "verbs_beside_sealer": Promise(0.95),
    "relay_replays_per_s": Promise(2000),
    "relay_cancels_per_s": Promise(2000),
    "relay_rabbitmq_replays_per_s": Promise(2000),
    "relay_single_p99_ms": Promise(None, 2000),
    "mirror_rows_per_s": Promise(5000),
    "mirror_memory_growth": Promise(None, 1.10),
    "pickup_ms_p99": Promise(None, 20),
    "idle_cpu_percent": Promise(None, 1),
    "worker_cpu_vs_celery": Promise(),
    "io_vs_celery": Promise(),
    "payload_64kib_vs_celery": Promise(),
    "rabbitmq_throughput_vs_celery": Promise(),
    "rabbitmq_worker_cpu_vs_celery": Promise(),
    "rabbitmq_enqueue_vs_celery": Promise(),
    "rabbitmq_enqueue_many_vs_celery": Promise(),
}


def kept(key: str, report: Mapping[str, Any]) -> bool | None:
    """Whether the report keeps a figure's promise; None if none was made or it was not measured."""
    promise, found = FIGURES[key], report.get(key)
    if found is None or not promise.made:
        return None
    enough = promise.least is None or found >= promise.least
    return enough and (promise.most is None or found <= promise.most)


def not_kept(report: Mapping[str, Any]) -> list[str]:
    """The figures that break their promise."""
    return [key for key in FIGURES if kept(key, report) is False]
