"""Explain one job: ask the servers, conclude, within the bounds of the reader."""

from __future__ import annotations

from sqlalchemy import Engine

from taskyard.access import Identity
from taskyard.control.explain.cause_kinds import Server
from taskyard.control.explain.explanation import Explanation
from taskyard.control.explain.find_causes import find_causes
from taskyard.control.explain.job_facts import Facts
from taskyard.control.explain.read_facts import read_facts
from taskyard.errors import NotFound
from taskyard.settings import Settings

__all__ = ["explain", "explanation_of"]


def explain(
    settings: Settings,
    job_id: str,
    *,
    engine: Engine | None = None,
    reader: Identity | None = None,
) -> Explanation:
    """Return why the job is where it is; it changes nothing.

    A server that does not answer is in `unknown`, and what only it knows is missing. Without an
    `engine` it connects to TASKYARD_DATABASE_URL. Raises `NotFound` for a job outside the bounds of
    `reader`, as if it did not exist; `MissingSetting` without TASKYARD_REDIS_URL.
    """
    facts = read_facts(settings, job_id, engine=engine, reader=reader)
    if reader is not None and not reader.sees(facts.queue, facts.fact("domain") or None):
        raise NotFound(f"there is no job {job_id[:60]!r}. See: taskyard jobs list")
    return explanation_of(facts)


def explanation_of(facts: Facts) -> Explanation:
    """Return the answer to which `facts` lead."""
    return Explanation(
        job_id=facts.job_id,
        state=_state(facts),
        job_type=facts.fact("type"),
        queue=facts.queue,
        priority=facts.fact("priority"),
        causes=find_causes(facts),
        unknown=facts.outages,
    )


def _state(facts: Facts) -> str | None:
    """Return the state by the record, or by the ledger if the job has no record any more."""
    if Server.RECORDS in facts.outages:
        return None
    if facts.state is not None:
        return facts.state.value
    return None if Server.POSTGRES in facts.outages else "none"
