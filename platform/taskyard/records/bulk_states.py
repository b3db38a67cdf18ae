"""The states or records of many jobs, and the results of ended jobs, in one round trip for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import RedisError, ResponseError

from taskyard.jobs.states import State
from taskyard.records.job_keys import Keys
from taskyard.records.job_record import Record
from taskyard.store import named

__all__ = ["End", "read_ends", "read_many", "read_states"]


@dataclass(frozen=True, slots=True)
class End:
    """A record, the result under Celery's key, and the copy of an installed app's result."""

    record: Record
    result: bytes | None
    copy: bytes | None


def read_states(
    client: redis.Redis, keys: Keys, job_ids: Sequence[str]
) -> list[tuple[State, str] | RedisError]:
    """Return (state, job type) of each job, or an error for a record that cannot be read.

    The state of a job without a record is `State.NONE`.
    """
    with client.pipeline(transaction=False) as pipe:
        for job_id in job_ids:
            pipe.hmget(keys.record(job_id), ("state", "type"))
        answers = pipe.execute(raise_on_error=False)
    return [_state(client, keys, *each) for each in zip(job_ids, answers, strict=True)]


def _state(
    client: redis.Redis, keys: Keys, job_id: str, answer: Any
) -> tuple[State, str] | RedisError:
    if isinstance(answer, ResponseError):
        return named(client, answer, {keys.record(job_id): "hash"})
    if isinstance(answer, RedisError):
        return answer
    state, job_type = (_text(value) for value in answer)
    return State(state or State.NONE), job_type


def read_ends(client: redis.Redis, keys: Keys, job_ids: Sequence[str]) -> list[End]:
    """Return record and results of each job; raises redis-py's errors."""
    if not job_ids:
        return []
    with client.pipeline(transaction=False) as pipe:
        for job_id in job_ids:
            pipe.hgetall(keys.record(job_id))
            pipe.get(keys.result(job_id))
            pipe.get(keys.kept_result(job_id))
        answers = pipe.execute()
    triples = zip(job_ids, answers[::3], answers[1::3], answers[2::3], strict=True)
    return [
        End(Record(job_id, {_text(k): _text(v) for k, v in fields.items()}), result, copy)
        for job_id, fields, result, copy in triples
    ]


def read_many(client: redis.Redis, keys: Keys, job_ids: Sequence[str]) -> list[Record | RedisError]:
    """Return the record of each job, or an error for a record that cannot be read."""
    with client.pipeline(transaction=False) as pipe:
        for job_id in job_ids:
            pipe.hgetall(keys.record(job_id))
        answers = pipe.execute(raise_on_error=False)
    return [_record(client, keys, *each) for each in zip(job_ids, answers, strict=True)]


def _record(client: redis.Redis, keys: Keys, job_id: str, answer: Any) -> Record | RedisError:
    if isinstance(answer, ResponseError):
        return named(client, answer, {keys.record(job_id): "hash"})
    if isinstance(answer, RedisError):
        return answer
    return Record(job_id, {_text(name): _text(value) for name, value in answer.items()})


def _text(raw: bytes | None) -> str:
    return "" if raw is None else raw.decode("utf-8", "replace")
