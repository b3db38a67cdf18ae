"""Cancel many jobs in one round trip, and note that the messages of many left their queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import redis
from redis.exceptions import RedisError, ResponseError

from taskyard.records.job_keys import Keys
from taskyard.records.operator_verbs import VerbTarget, parse_verb, verb_arguments
from taskyard.records.script_replies import CancelRequested, VerbApplied, VerbRefused
from taskyard.store import Argument, Script, named

__all__ = ["CancelAnswer", "CancelCall", "cancel_many", "note_gone_many"]

CancelAnswer = VerbApplied | CancelRequested | VerbRefused | RedisError
CancelCall = tuple[VerbTarget, str]
"""The job, and the id of the request to cancel it."""


def cancel_many(
    client: redis.Redis, script: Script, keys: Keys, calls: Sequence[CancelCall], operator: str
) -> list[CancelAnswer]:
    """Cancel each job as `OperatorVerbs.cancel` does; an error for each record that is refused.

    Raises redis-py's error if the server is lost: some jobs may be cancelled then, and a repeat of
    the same requests gets their first answers.
    """
    each = [(target.job_id, verb_arguments(target, request, operator)) for target, request in calls]
    answers = _pipelined(client, script, keys, each)
    return [
        _explained(client, keys, target.job_id, answer)
        if isinstance(answer, RedisError)
        else parse_verb(answer)
        for (target, _), answer in zip(calls, answers, strict=True)
    ]


def note_gone_many(
    client: redis.Redis, script: Script, keys: Keys, lives: Sequence[tuple[str, int]]
) -> None:
    """Note for many (job id, epoch) that no worker will see their message any more.

    The record of a job that an operator has ended then lasts as usual, and no longer until its
    message comes. Raises redis-py's errors.
    """
    answers = _pipelined(client, script, keys, [(job_id, [epoch]) for job_id, epoch in lives])
    for (job_id, _), answer in zip(lives, answers, strict=True):
        if isinstance(answer, RedisError):
            raise _explained(client, keys, job_id, answer)


def _pipelined(
    client: redis.Redis,
    script: Script,
    keys: Keys,
    calls: Iterable[tuple[str, Sequence[Argument]]],
) -> list[Any]:
    with client.pipeline(transaction=False) as pipe:
        script.queue_load(pipe)
        for job_id, arguments in calls:
            script.queue(pipe, keys.script_keys(job_id), [job_id, *arguments])
        return list(pipe.execute(raise_on_error=False)[1:])


def _explained(client: redis.Redis, keys: Keys, job_id: str, error: RedisError) -> RedisError:
    if not isinstance(error, ResponseError):
        return error
    record, stream, gaps, result = keys.script_keys(job_id)
    return named(client, error, {record: "hash", stream: "stream", gaps: "hash", result: "string"})
