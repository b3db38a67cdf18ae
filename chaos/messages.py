"""Where the messages of a Redis broker are, read by the suite's own eyes: no product code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from chaos.app import QUEUES
from chaos.cluster import Cluster

__all__ = ["Messages", "find_messages", "held_by", "held_messages"]

_CHUNK: Final = 1_000


@dataclass(slots=True)
class Messages:
    """Job ids by place. `held` are unacknowledged messages: the tag of each job's message."""

    queued: set[str] = field(default_factory=set)
    delayed: set[str] = field(default_factory=set)
    held: dict[str, str] = field(default_factory=dict)

    def somewhere(self, job_id: str) -> bool:
        """Whether the job has a message at all."""
        return job_id in self.queued or job_id in self.delayed or job_id in self.held


def find_messages(cluster: Cluster) -> Messages:
    """Every message of the storm's queues. One on its way between two places may be missed."""
    found = Messages(held=held_messages(cluster))
    for queue in _queues(cluster):
        for key in cluster.records.client.scan_iter(f"{queue}*", count=_CHUNK, _type="LIST"):
            found.queued |= {job for raw in _items(cluster, key) if (job := _job_of(raw))}
    for _, entry in cluster.records.client.hscan_iter(
        f"{cluster.settings.namespace}:delayed:messages"
    ):
        job = _job_of(entry.partition(b"\n")[2])
        if job:
            found.delayed.add(job)
    return found


def held_messages(cluster: Cluster) -> dict[str, str]:
    """The tag of each unacknowledged message by its job."""
    raw: Any = cluster.records.client.hgetall(_unacked(cluster))
    tags = {tag.decode(): _load(stored) for tag, stored in raw.items()}
    return {
        job: tag
        for tag, stored in tags.items()
        if isinstance(stored, list) and stored and (job := _id_in(stored[0]))
    }


def held_by(held: dict[str, str], pid: int) -> list[str]:
    """The jobs that a worker held by our transport, whose tags are `<host>.<pid>.<id>:<n>`."""
    return [job for job, tag in held.items() if tag.split(".")[-2:-1] == [str(pid)]]


def _items(cluster: Cluster, key: bytes) -> Iterator[bytes]:
    """A list from its left end, where new entries come: none is skipped."""
    start = 0
    while True:
        chunk: Any = cluster.records.client.lrange(key, start, start + _CHUNK - 1)
        yield from chunk
        if len(chunk) < _CHUNK:
            return
        start += _CHUNK


def _queues(cluster: Cluster) -> tuple[str, ...]:
    namespace = cluster.settings.namespace
    if cluster.setup.app:
        return QUEUES
    return tuple(f"{namespace}:{namespace}.{queue}" for queue in cluster.settings.queues)


def _unacked(cluster: Cluster) -> str:
    return "unacked" if cluster.setup.app else f"{cluster.settings.namespace}:unacked"


def _job_of(raw: bytes) -> str:
    return _id_in(_load(raw))


def _load(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def _id_in(document: Any) -> str:
    headers = document.get("headers") if isinstance(document, dict) else None
    return str(headers.get("id") or "") if isinstance(headers, dict) else ""
