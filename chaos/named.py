"""Whether `taskyard reconcile` names what a kill left behind, before it comes back.

All workers die and stay dead until their leases and heartbeats are over. What nobody goes on with
then is read from Redis, before and after the command runs; whatever stands there both times must be
in its JSON document.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chaos.audit import ENDS, states_of
from chaos.cluster import Cluster
from chaos.faults import Faults
from chaos.messages import held_messages
from chaos.stranded import expired, living_owners
from taskyard.ops.embedded.waiting import until
from taskyard.records import GONE_S

__all__ = ["Named", "kill_all_and_reconcile", "texts_in"]

_DEAD_WITHIN_S: Final = 30.0
_COMMAND_S: Final = 120.0
_ALL: Final = "1000000"
_FIRST: Final = 10


@dataclass(frozen=True, slots=True)
class Named:
    """One look: how many jobs stood still, and how many of them `reconcile` did not name.

    `said`: the first of those, and what it said instead.
    """

    stranded: int
    unnamed: int
    said: list[str]


def kill_all_and_reconcile(faults: Faults) -> Named:
    """Kill every worker, run `taskyard reconcile --json`, start the workers again."""
    cluster, workers = faults.cluster, list(faults.cluster.workers)
    pids = [worker.pid for worker in workers]
    cluster.supervisor.kill(workers)
    # By then every worker counts as gone, whatever its transport says of it.
    gone_s = time.monotonic() + GONE_S
    until(
        lambda: time.monotonic() > gone_s and _over(cluster, pids),
        within_s=_DEAD_WITHIN_S,
        every_s=0.2,
    )
    before = _stranded(cluster)
    document = _reconcile(cluster)
    truth = before & _stranded(cluster)
    # The fault lasts until there are workers again.
    faults.note_orphans(pids)
    cluster.mend()
    unnamed = sorted(truth - set(texts_in(document)))
    text = f"all workers killed, {len(truth)} jobs left behind, {len(unnamed)} not named"
    faults.over(text, all_dead=True)
    said = [f"{name}: {document.get(name)}" for name in ("drift", "suspected", "unseen")]
    return Named(len(truth), len(unnamed), [*unnamed[:_FIRST], *said] if unnamed else [])


def texts_in(document: object) -> Iterator[str]:
    """Every text of a JSON document, and every key."""
    if isinstance(document, str):
        yield document
    elif isinstance(document, dict):
        for name, value in document.items():
            yield str(name)
            yield from texts_in(value)
    elif isinstance(document, list):
        for value in document:
            yield from texts_in(value)


def _over(cluster: Cluster, pids: Sequence[int]) -> bool:
    """Whether no dead worker seems to live: neither by a lease nor by a heartbeat."""
    running = expired(cluster)
    if any(not over for over in running.values()):
        return False
    owners = living_owners(cluster)
    return not any(owner.split(".")[-2:-1] == [str(pid)] for owner in owners for pid in pids)


def _stranded(cluster: Cluster) -> set[str]:
    found = {job for job, over in expired(cluster).items() if over}
    if cluster.setup.broker == "redis" and cluster.setup.transport:
        held, living = held_messages(cluster), living_owners(cluster)
        dead = [job for job, tag in held.items() if tag.rpartition(":")[0] not in living]
        # One that has ended waits for nothing: only its acknowledgement was not sent.
        states = states_of(cluster, dead)
        found |= {job for job in dead if states[job] not in ENDS}
    return found


def _reconcile(cluster: Cluster) -> dict[str, Any]:
    """What the command prints; its exit code 1 says that something disagrees."""
    argv = [sys.executable, "-m", "taskyard.ops.cli", "reconcile", "--json"]
    # It names 20 of each kind unless it is asked for more.
    argv += ["--examples", _ALL]
    done = subprocess.run(  # noqa: S603 - our own program
        argv, env=cluster.environment(), capture_output=True, check=False, timeout=_COMMAND_S
    )
    try:
        document: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return {"unseen": [f"exit code {done.returncode}: {done.stderr.decode()[-2000:]}"]}
    return document
