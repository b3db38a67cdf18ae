"""What was measured on: enough to compare, nothing that names the machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import redis

__all__ = ["describe"]


def describe(url: str) -> dict[str, str]:
    """Cores, memory and versions."""
    with redis.Redis.from_url(url) as client:
        server = client.info("server")
    memory_kib = int(Path("/proc/meminfo").read_text("utf-8").split()[1])
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory_kib / 1024 / 1024:.0f} GiB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "server": f"Valkey {server.get('valkey_version', server['redis_version'])}, append-only "
        "file, synced every second",
        "celery": version("celery"),
        "kombu": version("kombu"),
        "redis-py": version("redis"),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
