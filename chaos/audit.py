"""The auditor: what was enqueued against effects, records, ledger and letters, each by its name."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import text

from chaos.cluster import Cluster
from chaos.effects import EFFECTS
from chaos.histories import open_intents, other_rows, read_histories
from chaos.letters import Letter, misplaced
from chaos.load import DOOMED, POISON
from chaos.poison import cases_of, verdict
from chaos.verbs import History, unanswered, wrongs
from taskyard.install import AnyQueuePublisher
from taskyard.jobs.states import State
from taskyard.reconcile import Reconciler
from taskyard.wire.letter_envelope import letter_id

__all__ = ["ENDS", "LOST_IN_POP", "REPEATED", "STORM_DEATHS", "Audit", "audit", "states_of"]

LOST_IN_POP: Final = "lost between kombu's pop and its note"
STORM_DEATHS: Final = "dead-lettered by the storm (retries or deaths used up)"
CONTRADICTED: Final = "operators' requests and what became of the job disagree"
REPEATED: Final = "effect without inbox repeated (allowed)"
_NAMED: Final = 10
_LETTERS: Final = "SELECT id::text, original_request_id, generation, status FROM dead_letter_queue"
ENDS: Final = (State.COMPLETED, State.DEAD_LETTERED, State.CANCELLED, State.ABORTED)
"""How a job may end; a cancelled or aborted one must have an operator's request."""
_CHUNK: Final = 1_000
# An operator may complete a dead letter, which then has both in one generation.
_DECISIONS: Final = """
    SELECT job_id FROM job_events WHERE event IN ('complete', 'fail')
    GROUP BY job_id, epoch, detail->>'generation' HAVING count(*) > 1
    UNION
    SELECT job_id FROM job_events WHERE event IN ('complete', 'force_complete', 'cancel', 'abort')
    GROUP BY job_id, epoch HAVING count(*) > 1
"""


@dataclass(slots=True)
class Audit:
    """Numbers first; `differences` names the first of each kind.

    `requests` are what operators requested; `contradictions` the jobs of which audit log, ledger,
    record, effects, letters and replies disagree, and the requests that the relay has left.
    """

    jobs: int
    lost: int = 0
    doubled: int = 0
    lost_in_pop: int = 0
    doubled_without_inbox: int = 0
    letters_without_row: int = 0
    poison: int = 0
    poison_exact: int = 0
    dead_lettered: int = 0
    requests: int = 0
    contradictions: int = 0
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
    histories = read_histories(cluster, states)
    _operators(cluster, seen, histories)
    _outcomes(cluster, seen, kinds, states, {*gone, *held_back}, histories)
    lost_in_pop = [f"{job}: {states[job].value}" for job in gone if states[job] not in ENDS]
    seen.lost_in_pop = seen.name(LOST_IN_POP, lost_in_pop)
    _effects(cluster, seen, kinds, states, histories)
    _letters(cluster, seen, states)
    # Of what kombu's pop has lost there is no letter, and no event after its loss.
    known = {job: kind for job, kind in kinds.items() if job not in gone or states[job] in ENDS}
    # What an operator has touched may have ended or begun anew before it had killed often enough.
    _poison(cluster, seen, {job: kind for job, kind in known.items() if not histories[job].rows})
    _ledger(cluster, seen, {job: states[job] for job in known})
    _drift(cluster, seen)
    return seen


def _operators(cluster: Cluster, seen: Audit, histories: Mapping[str, History]) -> None:
    others = other_rows(cluster, histories)
    rows = [row for job in histories.values() for row in job.rows]
    seen.requests = len({row.request for row in (*rows, *others)})
    seen.contradictions += seen.name("request for no job", list(unanswered(others)))
    found = {job: list(wrongs(history)) for job, history in histories.items()}
    named = [f"{job}: {'; '.join(texts)}" for job, texts in found.items() if texts]
    seen.contradictions += seen.name(CONTRADICTED, named)
    seen.contradictions += seen.name("request that the relay has left", open_intents(cluster))


def _outcomes(
    cluster: Cluster,
    seen: Audit,
    kinds: Mapping[str, str],
    states: Mapping[str, State],
    apart: set[str],
    histories: Mapping[str, History],
) -> None:
    open_ = {job for job, state in states.items() if state not in ENDS}
    seen.lost += seen.name("no outcome", sorted(open_ - apart))
    seen.dead_lettered = sum(state is State.DEAD_LETTERED for state in states.values())
    doomed = [job for job, kind in kinds.items() if kind in {DOOMED, POISON}]
    saved = [
        job
        for job in doomed
        if states[job] is State.COMPLETED and not histories[job].ended_by_operator
    ]
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
    cluster: Cluster,
    seen: Audit,
    kinds: Mapping[str, str],
    states: Mapping[str, State],
    histories: Mapping[str, History],
) -> None:
    entries: Any = cluster.effects_log.lrange(EFFECTS, 0, -1)
    plain = Counter(json.loads(raw)["job"] for raw in entries)
    with cluster.engine.connect() as connection:
        rows = connection.execute(text("SELECT job_id, count(*) FROM chaos_effects GROUP BY 1"))
        once = {row[0]: int(row[1]) for row in rows}
    done = [
        job
        for job, state in states.items()
        if state is State.COMPLETED and not histories[job].ended_by_operator
    ]
    seen.lost += seen.name("completed without its effect", [j for j in done if j not in plain])
    seen.lost += seen.name("completed, inbox effect missing", [j for j in done if j not in once])
    twice = [job for job, count in once.items() if count > 1]
    seen.doubled += seen.name("inbox effect applied twice", twice)
    again = [job for job, count in plain.items() if count > 1]
    seen.doubled_without_inbox = seen.name(REPEATED, again)
    seen.name("effect of an unknown job", [job for job in plain if job not in kinds])


def _letters(cluster: Cluster, seen: Audit, states: Mapping[str, State]) -> None:
    with cluster.engine.connect() as connection:
        rows = [Letter(*row) for row in connection.execute(text(_LETTERS))]
    known, twice = {row.id for row in rows}, Counter(row.id for row in rows)
    dead = [job for job, state in states.items() if state is State.DEAD_LETTERED]
    records = {job: cluster.records.read(job) for job in {*dead, *(row.job for row in rows)}}
    wanted = {letter_id(job, records[job].epoch, records[job].generation): job for job in dead}
    missing = [job for letter, job in wanted.items() if letter not in known]
    seen.letters_without_row = seen.name("letter without a row", missing)
    doubled = [letter for letter, count in twice.items() if count > 1]
    seen.doubled += seen.name("letter in two rows", doubled)
    wrong = [
        f"{row.id}: {why}"
        for row in rows
        if (why := misplaced(row, records[row.job].state, records[row.job].generation))
    ]
    seen.contradictions += seen.name("letter and job disagree", wrong)


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
    seen.contradictions += seen.name("ledger and record differ", other)
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
    # What kombu's pop has lost is drift that no repair can mend.
    if not cluster.setup.loses_pops:
        seen.contradictions += sum(seen.drift.values())
    if report.gate is not None:
        seen.differences["gate closed"] = [report.gate]
