"""Jobs that a fault left without anybody to go on with them, and how long that lasted.

Two witnesses. The ledger says which jobs had begun when a fault ended and when each went on; so do
the messages that killed workers held, as far as the broker shows them (Taskyard's transport). And
a look 45 s after the storm says of each open job who will go on with it.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from sqlalchemy import text

from chaos.cluster import Cluster
from chaos.faults import Faults
from chaos.messages import Messages, find_messages
from taskyard.jobs.states import State
from taskyard.transport import read_owners

__all__ = [
    "GOES_ON_S",
    "HELD",
    "Waits",
    "begun_spans",
    "expired",
    "find_gone",
    "find_stopped",
    "held_spans",
    "last_before",
    "living_owners",
    "waits",
]

# Whatever fault ends, work goes on within this.
GOES_ON_S: Final = 45.0
HELD: Final = "a dead worker holds its message"
_BETWEEN_LOOKS_S: Final = 1.0
_ENDS: Final = tuple(
    state.value for state in (State.COMPLETED, State.DEAD_LETTERED, State.CANCELLED, State.ABORTED)
)
_CHUNK: Final = 1_000
_SLOWEST: Final = 5
_HISTORY: Final = """
    SELECT job_id, event, extract(epoch FROM at) FROM job_events ORDER BY job_id, version
"""


# A job, the end of a fault that it waited after, and when it went on; in seconds since 1970.
Span = tuple[str, float, float]


@dataclass(frozen=True, slots=True)
class Waits:
    """`longest_s` that a job in hand waited after a fault; `late`: those over `GOES_ON_S`.

    `slowest` are the jobs that waited longest, each with its whole history.
    """

    longest_s: float
    late: dict[str, float]
    slowest: list[str]


def waits(cluster: Cluster, faults: Faults) -> Waits:
    """How long each job that was in hand when a fault ended waited until it went on."""
    histories: dict[str, list[tuple[float, str]]] = defaultdict(list)
    with cluster.engine.connect() as connection:
        for job_id, event, at in connection.execute(text(_HISTORY)):
            histories[job_id].append((float(at), event))
    spans = *begun_spans(histories, faults.ended_at), *held_spans(histories, faults.orphans)
    longest: dict[str, float] = {}
    for job_id, since, until in spans:
        waited_s = until - last_before(until, since, faults.all_dead_until)
        longest[job_id] = max(longest.get(job_id, 0.0), waited_s)
    late = {job: round(waited, 1) for job, waited in longest.items() if waited > GOES_ON_S}
    slowest = sorted(longest, key=lambda job: longest[job], reverse=True)[:_SLOWEST]
    return Waits(
        round(max(longest.values(), default=0.0), 2),
        late,
        [f"{job}: {longest[job]:.1f} s: {_explained(histories[job], faults)}" for job in slowest],
    )


def _explained(history: Sequence[tuple[float, str]], faults: Faults) -> str:
    """The events of a job and the faults between them, in seconds from its first event."""
    first, last = history[0][0], history[-1][0]
    between = zip(faults.ended_at, faults.told, strict=True)
    moments = [*history, *((at, what.upper()) for at, what in between if first <= at <= last)]
    return ", ".join(f"{what} {at - first:.1f}" for at, what in sorted(moments))


def last_before(until: float, since: float, all_dead_until: Sequence[float]) -> float:
    """When a wait began: anew where all workers were dead, for no worker could go on."""
    return max(at for at in (since, *all_dead_until) if at <= until)


def begun_spans(
    histories: Mapping[str, list[tuple[float, str]]], ended_at: Sequence[float]
) -> Iterator[Span]:
    """Of each job that had begun when a fault ended: the end of the first such fault."""
    ends = sorted(ended_at)
    for job_id, history in histories.items():
        for (began_at, event), (went_on_at, _) in pairwise(history):
            first = bisect_right(ends, began_at)
            if event == "begin" and first < len(ends) and ends[first] <= went_on_at:
                yield job_id, ends[first], went_on_at


def held_spans(
    histories: Mapping[str, list[tuple[float, str]]], orphans: Sequence[tuple[str, float]]
) -> Iterator[Span]:
    """Of each held message its worker's death: a second worker that died with it begins it anew.

    Not of a retry that was decided: it is published when the message comes back, of which there is
    no event, and then waits its turn at the end of the queue.
    """
    died: dict[str, list[float]] = defaultdict(list)
    for job_id, died_at in orphans:
        died[job_id].append(died_at)
    for job_id, died_at in orphans:
        if [event for at, event in histories[job_id] if at <= died_at][-1:] == ["retry"]:
            continue
        went_on = min((at for at, _ in histories[job_id] if at > died_at), default=None)
        again = [other for other in died[job_id] if other > died_at]
        if went_on is not None and not (again and min(again) < went_on):
            yield job_id, died_at, went_on


def find_stopped(cluster: Cluster, job_ids: Sequence[str]) -> dict[str, str]:
    """The open jobs among `job_ids` that nobody will go on with, each with what is known of it."""
    before = _stopped(cluster, job_ids)
    time.sleep(_BETWEEN_LOOKS_S)
    after = _stopped(cluster, list(before))
    return {job: why for job, (_, why) in after.items() if after[job] == before[job]}


def find_gone(cluster: Cluster, job_ids: Sequence[str]) -> list[str]:
    """The open jobs among `job_ids` whose message is nowhere at a Redis broker, in two looks."""
    gone = list(job_ids)
    for number in range(2):
        if number:
            time.sleep(_BETWEEN_LOOKS_S)
        messages = find_messages(cluster)
        states = _records(cluster, gone)
        now_us = _now_us(cluster)
        gone = [
            job
            for job in gone
            if not messages.somewhere(job)
            and states[job].state not in _ENDS
            and not states[job].running(now_us)
        ]
    return gone


@dataclass(frozen=True, slots=True)
class _Seen:
    state: str
    version: int
    lease_until_us: int

    def running(self, now_us: int) -> bool:
        """Whether an attempt runs, as far as its lease says."""
        return self.state == State.RUNNING.value and self.lease_until_us > now_us


def _stopped(cluster: Cluster, job_ids: Sequence[str]) -> dict[str, tuple[int, str]]:
    """The version of each job's record, and why nothing goes on with it."""
    now_us, records = _now_us(cluster), _records(cluster, job_ids)
    # The messages last: a job that went on meanwhile has moved its record.
    messages = find_messages(cluster) if cluster.setup.broker == "redis" else None
    living = living_owners(cluster)
    found: dict[str, tuple[int, str]] = {}
    for job, seen in records.items():
        if seen.state in _ENDS or seen.running(now_us):
            continue
        why = _why_stopped(cluster, job, seen, messages, living)
        if why:
            found[job] = seen.version, why
    return found


def _why_stopped(
    cluster: Cluster, job: str, seen: _Seen, messages: Messages | None, living: set[str]
) -> str:
    state = seen.state or "no record"
    if messages is None:
        # RabbitMQ shows no message: only a lease that ran out says that nobody goes on.
        return f"{state}, its lease has expired" if seen.state == State.RUNNING.value else ""
    if job in messages.queued or job in messages.delayed:
        return ""
    tag = messages.held.get(job)
    if tag is None:
        return f"{state}, its message was not found anywhere"
    if cluster.setup.transport and tag.rpartition(":")[0] not in living:
        return f"{state}, {HELD}"
    if seen.state == State.RUNNING.value:
        return f"{state}, its lease has expired and its message is unacknowledged"
    return ""


def living_owners(cluster: Cluster) -> set[str]:
    """The consumers by our transport whose heartbeat is not over."""
    now_us, owners = read_owners(cluster.records.client, f"{cluster.settings.namespace}:heartbeats")
    return {owner.name for owner in owners if owner.alive(now_us)}


def expired(cluster: Cluster) -> dict[str, bool]:
    """Every job whose record is `running`: whether its lease is over."""
    prefix = cluster.records.keys.record("")
    keys = cluster.records.client.scan_iter(f"{prefix}*", count=_CHUNK, _type="HASH")
    records = _records(cluster, [key.decode().removeprefix(prefix) for key in keys])
    now_us = _now_us(cluster)
    return {
        job: not seen.running(now_us)
        for job, seen in records.items()
        if seen.state == State.RUNNING.value
    }


def _records(cluster: Cluster, job_ids: Sequence[str]) -> dict[str, _Seen]:
    records, found = cluster.records, {}
    for start in range(0, len(job_ids), _CHUNK):
        chunk = job_ids[start : start + _CHUNK]
        with records.client.pipeline(transaction=False) as pipe:
            for job_id in chunk:
                pipe.hmget(records.keys.record(job_id), "state", "version", "lease_until")
            rows: Any = pipe.execute()
        for job_id, (state, version, lease) in zip(chunk, rows, strict=True):
            text_ = state.decode() if state else ""
            found[job_id] = _Seen(text_, int(version or 0), int(lease or 0))
    return found


def _now_us(cluster: Cluster) -> int:
    seconds, micros = cluster.records.client.time()
    return int(seconds) * 1_000_000 + int(micros)
