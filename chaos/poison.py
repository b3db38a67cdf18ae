"""Whether each poison job ended as a letter at exactly its configured count of deaths.

What can be promised: a begin counts one death until its attempt decides or is given back (a drain,
a lost connection), and the count that reaches the limit is a letter. So the storm's own kills
count too, nobody dies after more deaths than the limit, and the handler never starts again after
them. Four witnesses must agree: the cause, the letter's history, the ledger's events, the handler.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from chaos.cluster import Cluster
from chaos.effects import POISONINGS

__all__ = ["Case", "cases_of", "verdict"]


@dataclass(frozen=True, slots=True)
class Case:
    """One poison job: its letter (None without one), its begins and releases, its handler's runs.

    `attempts` and `evidence` are the letter's; `begins` and `releases` are events of the ledger.
    """

    category: str | None
    evidence: Mapping[str, Any]
    attempts: Sequence[Mapping[str, Any]]
    begins: int
    releases: int
    runs: int


def verdict(case: Case, limit: int) -> str | None:
    """What is wrong, None if the job died at exactly `limit` deaths."""
    if case.category is None:
        return "it has no letter"
    if case.category != "poison" or case.evidence.get("counter") != "deaths":
        return f"it died of {case.category} {dict(case.evidence)}, expected poison by deaths"
    counted = case.evidence.get("count")
    lost = sum(note.get("outcome") == "lost" for note in case.attempts)
    for what, count, wanted in (
        ("deaths in its cause", counted, limit),
        ("deaths in its letter's history", lost, limit),
        ("other outcomes in its letter's history", len(case.attempts) - lost, 0),
        ("begins in the ledger", case.begins, limit + case.releases),
    ):
        if count != wanted:
            return f"{count} {what}, expected {wanted}"
    if case.runs > case.begins:
        return f"its handler ran {case.runs} times in {case.begins} begins"
    return None


def cases_of(cluster: Cluster, jobs: Sequence[str]) -> dict[str, Case]:
    """What is known of each of `jobs`."""
    entries: Any = cluster.effects_log.lrange(POISONINGS, 0, -1)
    runs = Counter(json.loads(raw)["job"] for raw in entries)
    with cluster.engine.connect() as connection:
        letters = _letters(connection, jobs)
        events = _events(connection, jobs)
    return {job: _case(job, letters, events, runs) for job in jobs}


def _case(
    job: str,
    letters: Mapping[str, tuple[str, Any, Any]],
    events: Counter[tuple[str, str]],
    runs: Counter[str],
) -> Case:
    category, evidence, attempts = letters.get(job, (None, {}, []))
    begins, releases = events[job, "begin"], events[job, "release"]
    return Case(category, evidence, attempts, begins, releases, runs[job])


def _letters(connection: Connection, jobs: Sequence[str]) -> dict[str, tuple[str, Any, Any]]:
    query = (
        "SELECT original_request_id, failure_category, evidence, attempts FROM dead_letter_queue "
        "WHERE original_request_id = ANY(:jobs)"
    )
    rows = connection.execute(text(query), {"jobs": list(jobs)})
    return {row[0]: (row[1], row[2] or {}, row[3] or []) for row in rows}


def _events(connection: Connection, jobs: Sequence[str]) -> Counter[tuple[str, str]]:
    query = "SELECT job_id, event, count(*) FROM job_events WHERE job_id = ANY(:jobs) GROUP BY 1, 2"
    rows = connection.execute(text(query), {"jobs": list(jobs)})
    return Counter({(row[0], row[1]): int(row[2]) for row in rows})
