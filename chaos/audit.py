"""The auditor: what was enqueued against effects, records, ledger and letters, each by its name."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import text

from chaos.cluster import Cluster
from chaos.effects import EFFECTS
from chaos.load import DOOMED, POISON
from chaos.poison import cases_of, verdict
from taskyard.install import AnyQueuePublisher
from taskyard.jobs.states import State
from taskyard.reconcile import Reconciler
from taskyard.wire.letter_envelope import letter_id

__all__ = ["ENDS", "LOST_IN_POP", "REPEATED", "STORM_DEATHS", "Audit", "audit", "states_of"]

LOST_IN_POP: Final = "lost between kombu's pop and its note"
STORM_DEATHS: Final = "dead-lettered by the storm (retries or deaths used up)"
REPEATED: Final = "effect without inbox repeated (allowed)"
_NAMED: Final = 10
ENDS: Final = (State.COMPLETED, State.DEAD_LETTERED)
_CHUNK: Final = 1_000
_DECISIONS: Final = """
    SELECT job_id, count(*) FROM job_events
    WHERE event IN ('complete', 'fail', 'force_complete')
    GROUP BY job_id, epoch, detail->>'generation' HAVING count(*) > 1
"""


@dataclass(slots=True)
class Audit:
    """Numbers first; `differences` names the first of each kind."""

    jobs: int
    lost: int = 0
    doubled: int = 0
    lost_in_pop: int = 0
    doubled_without_inbox: int = 0
    letters_without_row: int = 0
    poison: int = 0
    poison_exact: int = 0
    dead_lettered: int = 0
    drift: dict[str, int] = field(default_factory=dict)
    differences: dict[str, list[str]] = field(default_factory=dict)

    def name(self, what: str, job_ids: Sequence[str]) -> int:
        """Note a difference; how many."""
        if job_ids:
            self.differences[what] = [f"{len(job_ids)} in all", *sorted(job_ids)[:_NAMED]]
        return len(job_ids)


def states_of(cluster: Cluster, job_ids: Sequence[str]) -> dict[str, State]:
    """The record's state of each job."""
    records, found = cluster.records, {}
    for start in range(0, len(job_ids), _CHUNK):
        chunk = job_ids[start : start + _CHUNK]
        with records.client.pipeline(transaction=False) as pipe:
            for job_id in chunk:
                pipe.hget(records.keys.record(job_id), "state")
            for job_id, raw in zip(chunk, pipe.execute(), strict=True):
                found[job_id] = State(raw.decode() if raw else "none")
    return found


def audit(
    cluster: Cluster,
    kinds: Mapping[str, str],
    gone: Sequence[str] = (),
    held_back: Sequence[str] = (),
) -> Audit:
    """Compare everything; `kinds` are the deeds' kinds by job id.

    `gone` are jobs whose message the app's own transport has lost, `held_back` those that come
    back late: neither counts as lost.
    """
    seen = Audit(len(kinds))
    states = states_of(cluster, list(kinds))
    _outcomes(cluster, seen, kinds, states, {*gone, *held_back})
    lost_in_pop = [f"{job}: {states[job].value}" for job in gone if states[job] not in ENDS]
    seen.lost_in_pop = seen.name(LOST_IN_POP, lost_in_pop)
    _effects(cluster, seen, kinds, states)
    _letters(cluster, seen, states)
    # Of what kombu's pop has lost there is no letter, and no event after its loss.
    known = {job: kind for job, kind in kinds.items() if job not in gone or states[job] in ENDS}
    _poison(cluster, seen, known)
    _ledger(cluster, seen, {job: states[job] for job in known})
    _drift(cluster, seen)
    return seen


def _outcomes(
    cluster: Cluster,
    seen: Audit,
    kinds: Mapping[str, str],
    states: Mapping[str, State],
    apart: set[str],
) -> None:
    open_ = {job for job, state in states.items() if state not in ENDS}
    seen.lost += seen.name("no outcome", sorted(open_ - apart))
    seen.dead_lettered = sum(state is State.DEAD_LETTERED for state in states.values())
    doomed = [job for job, kind in kinds.items() if kind in {DOOMED, POISON}]
    saved = [job for job in doomed if states[job] is State.COMPLETED]
    seen.name("completed although doomed or poison", saved)
    died = [
        job
        for job, state in states.items()
        if state is State.DEAD_LETTERED and kinds[job] not in {DOOMED, POISON}
    ]
    seen.name(STORM_DEATHS, [f"{job}: {_cause(cluster, job)}" for job in died])


def _cause(cluster: Cluster, job_id: str) -> str:
    cause = cluster.records.read(job_id).cause
    return f"{cause.get('code')}: {cause.get('message')} {cause.get('evidence', '')}"


def _effects(
    cluster: Cluster, seen: Audit, kinds: Mapping[str, str], states: Mapping[str, State]
) -> None:
    entries: Any = cluster.effects_log.lrange(EFFECTS, 0, -1)
    plain = Counter(json.loads(raw)["job"] for raw in entries)
    with cluster.engine.connect() as connection:
        rows = connection.execute(text("SELECT job_id, count(*) FROM chaos_effects GROUP BY 1"))
        once = {row[0]: int(row[1]) for row in rows}
    done = [job for job, state in states.items() if state is State.COMPLETED]
    seen.lost += seen.name("completed without its effect", [j for j in done if j not in plain])
    seen.lost += seen.name("completed, inbox effect missing", [j for j in done if j not in once])
    twice = [job for job, count in once.items() if count > 1]
    seen.doubled += seen.name("inbox effect applied twice", twice)
    again = [job for job, count in plain.items() if count > 1]
    seen.doubled_without_inbox = seen.name(REPEATED, again)
    seen.name("effect of an unknown job", [job for job in plain if job not in kinds])


def _letters(cluster: Cluster, seen: Audit, states: Mapping[str, State]) -> None:
    dead = [job for job, state in states.items() if state is State.DEAD_LETTERED]
    wanted = {}
    for job in dead:
        record = cluster.records.read(job)
        wanted[uuid.UUID(letter_id(job, record.epoch, record.generation))] = job
    with cluster.engine.connect() as connection:
        known = set(connection.scalars(text("SELECT id FROM dead_letter_queue")))
        doubled = connection.scalars(
            text("SELECT id::text FROM dead_letter_queue GROUP BY id HAVING count(*) > 1")
        ).all()
    missing = [job for letter, job in wanted.items() if letter not in known]
    seen.letters_without_row = seen.name("letter without a row", missing)
    seen.doubled += seen.name("letter in two rows", list(doubled))
    seen.name("letter of a job that is not dead", [str(one) for one in known - set(wanted)])


def _poison(cluster: Cluster, seen: Audit, kinds: Mapping[str, str]) -> None:
    jobs = [job for job, kind in kinds.items() if kind == POISON]
    faults = {
        job: verdict(case, cluster.settings.death_limit)
        for job, case in cases_of(cluster, jobs).items()
    }
    wrong = [f"{job}: {fault}" for job, fault in faults.items() if fault is not None]
    seen.poison, seen.poison_exact = len(jobs), len(jobs) - len(wrong)
    seen.name("poison not at its configured count", wrong)


def _ledger(cluster: Cluster, seen: Audit, states: Mapping[str, State]) -> None:
    with cluster.engine.connect() as connection:
        rows = connection.execute(text("SELECT job_id, state FROM job_ledger"))
        by_ledger = {row[0]: row[1] for row in rows}
        twice = list(connection.scalars(text(_DECISIONS)))
    other = [job for job, state in states.items() if by_ledger.get(job) != state.value]
    seen.name("ledger and record differ", other)
    seen.doubled += seen.name("outcome recorded twice", twice)


def _drift(cluster: Cluster, seen: Audit) -> None:
    reconciler = Reconciler(
        cluster.settings,
        cluster.engine,
        cluster.records,
        AnyQueuePublisher(cluster.settings, cluster.records),
        grace_s=0,
    )
    try:
        report = reconciler.run()
    finally:
        reconciler.close()
    seen.drift = {kind.value: count for kind, count in report.drift.items() if count}
    if report.gate is not None:
        seen.differences["gate closed"] = [report.gate]
