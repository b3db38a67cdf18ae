"""Bare Celery with the usual Redis lock around the job's body, as many run books have it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import redis
from celery.app.task import Context

from bench.apps.celery_bare import app
from bench.apps.work import payload, redis_url, wait


@cache
def _client() -> redis.Redis:
    return redis.Redis.from_url(redis_url())


def execute_idempotent(job_id: str, job_data: Any, logic: Callable[[Any], Any]) -> Any:
    """Look for a result, lock, look again, run, keep the result for an hour."""
    client = _client()
    result_key = f"job_result:{job_id}"
    cached = client.get(result_key)
    if cached:
        return json.loads(cached)
    with client.lock(f"job_lock:{job_id}", timeout=300, blocking_timeout=10):
        cached = client.get(result_key)
        if cached:
            return json.loads(cached)
        result = logic(job_data)
        client.setex(result_key, 3600, json.dumps(result))
        return result


def _request(task: Any) -> Context:
    return task.request


@app.task(name="locked_noop", bind=True)
def locked_noop(self: Any, data: Any) -> Any:
    """Nothing, at most once at a time."""
    return execute_idempotent(_request(self).id, data, lambda _: None)


@app.task(name="locked_io", bind=True)
def locked_io(self: Any, data: Any) -> Any:
    """A short wait, at most once at a time."""
    return execute_idempotent(_request(self).id, data, lambda _: wait())


def send(count: int, body: str, size: int) -> None:
    """Enqueue `count` jobs one by one."""
    task, argument = app.tasks[f"locked_{body}"], payload(size)
    for _ in range(count):
        task.delay(argument)
