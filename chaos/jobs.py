"""The handlers under the storm: one effect without an inbox, one with; some fail on purpose."""

from __future__ import annotations

import json
import os
import signal
import time
from functools import cache
from typing import Any, Final

import redis
from pydantic import BaseModel
from sqlalchemy import Connection, Engine, create_engine, text

from taskyard.errors import CodedError
from taskyard.jobs import JobContext, job

__all__ = ["DATABASE_VARIABLE", "EFFECTS", "POISONINGS", "WITNESS_VARIABLE", "Deed"]

WITNESS_VARIABLE: Final = "CHAOS_WITNESS_URL"
DATABASE_VARIABLE: Final = "CHAOS_DATABASE_URL"
EFFECTS: Final = "effects"
POISONINGS: Final = "poisonings"
# Long enough for a database that is away for half a minute.
_POLICY: Final = {
    "max_retries": 12,
    "backoff_strategy": "exponential",
    "base_delay_ms": 300,
    "max_delay_ms": 4000,
    "no_retry_errors": ["doomed"],
}


class Deed(BaseModel):
    """`kind`: `plain`, `flaky` (its first attempt fails), `doomed` (it always fails).

    `poison` kills the process that runs it, each time.
    """

    number: int
    kind: str = "plain"


@cache
def _witness(pid: int) -> redis.Redis:
    """A server that no storm touches, a client of each process."""
    return redis.Redis.from_url(os.environ[WITNESS_VARIABLE])


@cache
def _database(pid: int) -> Engine:
    options = {"connect_timeout": 5, "tcp_user_timeout": 10_000}
    return create_engine(
        os.environ[DATABASE_VARIABLE], pool_pre_ping=True, pool_size=1, connect_args=options
    )


@job("storm_deed", queue="exec", policy=_POLICY, time_limit_s=30)
def storm_deed(deed: Deed, context: JobContext) -> int:
    """Apply both effects."""
    if deed.kind == "doomed":
        raise CodedError("doomed", "told to fail for good")
    if deed.kind == "poison":
        _tell(POISONINGS, context)
        os.kill(os.getpid(), signal.SIGKILL)
    if deed.kind == "flaky" and context.attempt == 1:
        raise CodedError("flaky", "told to fail once")
    with _database(os.getpid()).begin() as connection:
        if context.once(connection):
            _apply(connection, context.job_id)
    _tell(EFFECTS, context)
    return deed.number


def _tell(what: str, context: JobContext) -> None:
    note: dict[str, Any] = {"job": context.job_id, "at": time.time()}
    _witness(os.getpid()).rpush(what, json.dumps(note))


def _apply(connection: Connection, job_id: str) -> None:
    connection.execute(text("INSERT INTO chaos_effects (job_id) VALUES (:job)"), {"job": job_id})
