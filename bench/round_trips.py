"""How many commands a job costs, counted on the wire: by the child, and by the main process."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import redis

from bench.contenders import Contender
from bench.processes import Bench, Workers
from bench.throughput import await_level

__all__ = ["RoundTrips", "count_round_trips"]

_PATIENCE_S = 30.0


@dataclass(frozen=True)
class RoundTrips:
    """Commands for each job, by the process that sent them."""

    child: float
    main: float


def count_round_trips(bench: Bench, contender: Contender, count: int) -> RoundTrips:
    """Watch the server (MONITOR) while a worker does `count` jobs that succeed.

    What a script calls inside the server is no round trip and is not counted.
    """
    bench.empty()
    client = bench.client(contender)
    with bench.workers(contender) as workers, bench.gauge(contender) as left:
        # Connections and scripts are there before the counting starts.
        bench.send(contender, 50, "noop", 100, "send")
        await_level(contender, left, 0, workers)
        seen: Counter[str] = Counter()
        watcher = threading.Thread(target=_watch, args=(bench.url, seen), daemon=True)
        watcher.start()
        bench.send(contender, count, "noop", 100, "send")
        await_level(contender, left, 0, workers)
        _await_unacked(client)
        ports = _ports(workers)
        client.publish("bench:stop", "now")
        watcher.join(30)
    client.close()
    main, *children = (sum(seen[port] for port in own) for own in ports.values())
    return RoundTrips(child=sum(children) / count, main=main / count)


def _watch(url: str, seen: Counter[str]) -> None:
    with redis.Redis.from_url(url) as client, client.monitor() as monitor:
        for command in monitor.listen():
            if command["client_type"] == "lua":
                continue
            if command["command"].startswith("PUBLISH bench:stop"):
                return
            seen[command["client_port"]] += 1


def _await_unacked(client: redis.Redis) -> None:
    until = time.monotonic() + _PATIENCE_S
    while client.hlen("unacked"):
        if time.monotonic() > until:
            raise TimeoutError(f"messages are unacknowledged {_PATIENCE_S:g} s after the last job")
        time.sleep(0.01)


def _ports(workers: Workers) -> dict[int, set[str]]:
    """Pid -> local ports of its connections, the main process first."""
    by_inode = {}
    for line in Path("/proc/net/tcp").read_text("utf-8").splitlines()[1:]:
        fields = line.split()
        by_inode[fields[9]] = str(int(fields[1].partition(":")[2], 16))
    return {pid: _ports_of(pid, by_inode) for pid in workers.pids()}


def _ports_of(pid: int, by_inode: dict[str, str]) -> set[str]:
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        target = str(link.readlink()) if link.is_symlink() else ""
        inode = target.removeprefix("socket:[").removesuffix("]")
        if inode in by_inode:
            found.add(by_inode[inode])
    return found
