"""A handler that writes to a database of its own, with and without the inbox."""

from __future__ import annotations

import os
import signal
from typing import Any

import redis
from sqlalchemy import text

from support.acts import AT_ONCE
from support.handlers import Notes
from taskyard.database import engine
from taskyard.errors import CodedError
from taskyard.jobs import JobContext, job
from taskyard.settings import load

__all__ = ["effect_act"]

WRITE = text("INSERT INTO effects (job_id, step) VALUES (:job, :step)")


@job("effect_act", queue="exec", policy=AT_ONCE)
def effect_act(payload: dict[str, Any], context: JobContext) -> bool:
    """Two steps in one transaction; the first run is in trouble. Whether this run applied them."""
    settings = load().settings
    notes = Notes(redis.Redis.from_url(settings.need_redis_url()), settings.namespace)
    first = notes.note(context, "") == 1
    applied = False
    with engine(settings.need_database_url()).begin() as connection:
        for step in ("main", "second"):
            if not payload["once"] or context.once(connection, step):
                connection.execute(WRITE, {"job": context.job_id, "step": step})
                applied = True
        _suffer(payload, "die before the commit", first=first)
    _suffer(payload, "die after the commit", first=first)
    _suffer(payload, "fail after the commit", first=first)
    return applied


def _suffer(payload: dict[str, Any], trouble: str, *, first: bool) -> None:
    if not first or payload["trouble"] != trouble:
        return
    if trouble.startswith("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    raise CodedError("flaky", trouble)
