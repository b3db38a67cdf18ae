"""The effects of a job: one without an inbox in a Redis of its own, one with it in Postgres."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import redis
from sqlalchemy import Connection, Engine, create_engine, text

from taskyard.inbox import once

__all__ = [
    "DATABASE_VARIABLE",
    "EFFECTS",
    "POISONINGS",
    "TABLE",
    "WITNESS_VARIABLE",
    "apply_once",
    "note_effect",
    "note_poisoning",
    "work_s",
]

WITNESS_VARIABLE: Final = "CHAOS_WITNESS_URL"
DATABASE_VARIABLE: Final = "CHAOS_DATABASE_URL"
EFFECTS: Final = "effects"
POISONINGS: Final = "poisonings"
TABLE: Final = (
    "CREATE TABLE chaos_effects "
    "(job_id text, token bigint, at timestamptz DEFAULT clock_timestamp())"
)
_INSERT: Final = "INSERT INTO chaos_effects (job_id, token) VALUES (:job, :token)"


def note_effect(job_id: str, token: int | None = None) -> None:
    """The effect without an inbox, on a server that no storm touches; `token` is the attempt's."""
    _note(EFFECTS, job_id, token)


def note_poisoning(job_id: str) -> None:
    """A handler is about to kill its process."""
    _note(POISONINGS, job_id)


def apply_once(
    job_id: str,
    first: Callable[[Connection], bool] | None = None,
    token: int | None = None,
) -> None:
    """The effect with the inbox; `first` is the job's own `once`, by default the task id's."""
    with _database(os.getpid()).begin() as connection:
        if once(connection, job_id) if first is None else first(connection):
            connection.execute(text(_INSERT), {"job": job_id, "token": token})


def work_s(number: int) -> float:
    """How long a job works that takes a while: 0.1 to 1.5 s."""
    return 0.1 + 0.2 * (number % 8)


def _note(what: str, job_id: str, token: int | None = None) -> None:
    note: dict[str, Any] = {"job": job_id, "at": time.time(), "token": token}
    _effects_log(os.getpid()).rpush(what, json.dumps(note))


@cache
def _effects_log(pid: int) -> redis.Redis:
    """A client of each process."""
    return redis.Redis.from_url(os.environ[WITNESS_VARIABLE])


@cache
def _database(pid: int) -> Engine:
    options = {"connect_timeout": 5, "tcp_user_timeout": 10_000}
    return create_engine(
        os.environ[DATABASE_VARIABLE], pool_pre_ping=True, pool_size=1, connect_args=options
    )
