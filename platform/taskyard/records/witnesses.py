"""Records of jobs that their producer has published itself: many scripts in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import redis
from redis.exceptions import ResponseError

from taskyard.records.answers import Witnessed
from taskyard.records.keys import Keys
from taskyard.store import Argument, Script, WrongKeyType, named
from taskyard.wire.logs import logger

__all__ = ["witness"]

log = logger(__name__)

_TYPES: Final = ("hash", "stream", "hash", "string")


def witness(
    client: redis.Redis,
    script: Script,
    keys: Keys,
    jobs: Sequence[Witnessed],
    *,
    published: bool,
    window_ms: int,
) -> int:
    """How many of `jobs` got a record; see `Records.witness_many`."""
    with client.pipeline(transaction=False) as pipe:
        script.queue_load(pipe)
        for job in jobs:
            facts: list[Argument] = [job.job_id, job.job_type, job.queue]
            facts += [int(published), window_ms]
            script.queue(pipe, keys.script_keys(job.job_id), facts)
        # Each is a script of its own: one that is refused says nothing of the others.
        answers = pipe.execute(raise_on_error=False)[1:]
    return sum(_new(client, keys, job, told) for job, told in zip(jobs, answers, strict=True))


def _new(client: redis.Redis, keys: Keys, job: Witnessed, answer: Any) -> int:
    """1 for a job that has a new record, 0 for one that has none or had one; raises the others."""
    if not isinstance(answer, Exception):
        return int(answer)
    if not isinstance(answer, ResponseError):
        raise answer
    of_script = keys.script_keys(job.job_id)
    error = named(client, answer, dict(zip(of_script, _TYPES, strict=True)))
    if not isinstance(error, WrongKeyType) or error.key != keys.record(job.job_id):
        raise error
    facts = {"action": "key_misplaced", "key": error.key, "job_id": job.job_id}
    log.error("job %s has no record: %s", job.job_id, error, extra=facts)
    return 0
