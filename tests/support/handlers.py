"""The handlers of the worker under test: one act (support/acts.py) on every queue.

Each run is noted in Redis before it acts, so a test sees what ran again.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from functools import cache
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from support.acts import AT_ONCE, NEVER, POLL_S, Act, delayed, misbehave
from taskyard.errors import CodedError
from taskyard.jobs import JobContext, job
from taskyard.settings import load

__all__ = ["Notes"]

# Longer than a busy machine takes to publish a retry, so that it waits in the delay store.
SOON = delayed(1000)


class Notes:
    """What the handlers wrote down, and the gates at which they wait."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client, self._namespace = client, namespace

    def note(self, context: JobContext, label: str) -> int:
        """Write one run down and return how many there are of this job."""
        facts = {"attempt": context.attempt, "token": context.token, "pid": os.getpid()}
        self._client.rpush(self._order, label or context.job_id)
        return int(self._client.rpush(self._runs(context.job_id), json.dumps(facts)))

    def runs(self, job_id: str) -> int:
        return int(self._client.llen(self._runs(job_id)))

    def run_facts(self, job_id: str) -> list[dict[str, Any]]:
        return [json.loads(raw) for raw in self._client.lrange(self._runs(job_id), 0, -1)]

    def order(self) -> list[str]:
        """The labels (or ids) of all runs, in the order of their start."""
        return [raw.decode() for raw in self._client.lrange(self._order, 0, -1)]

    def open_gate(self, name: str) -> None:
        self._client.set(self._gate(name), 1)

    def is_open(self, name: str) -> bool:
        return bool(self._client.exists(self._gate(name)))

    @property
    def _order(self) -> str:
        return f"{self._namespace}:notes:order"

    def _runs(self, job_id: str) -> str:
        return f"{self._namespace}:notes:runs:{job_id}"

    def _gate(self, name: str) -> str:
        return f"{self._namespace}:notes:gate:{name}"


@cache
def _notes(pid: int) -> Notes:
    settings = load().settings
    # A client that asks again would note one run twice.
    client = redis.Redis.from_url(settings.need_redis_url(), retry=Retry(NoBackoff(), 0))
    return Notes(client, settings.namespace)


def _begin(act: Act, context: JobContext) -> bool:
    """Note the run; whether it is one of those that misbehave."""
    return act.misbehaves_in(_notes(os.getpid()).note(context, act.label))


def _act(act: Act, context: JobContext) -> Any:
    if not _begin(act, context):
        return act.value
    answer = misbehave(act, context)
    while act.gate and not _notes(os.getpid()).is_open(act.gate):
        time.sleep(POLL_S)
    while act.do == "hang" or (act.do == "until cancelled" and not context.cancelled):
        time.sleep(POLL_S)
    if act.do == "gate then fail":
        raise CodedError(act.code, "told to fail after the gate")
    return answer


async def _act_async(act: Act, context: JobContext) -> Any:
    if not _begin(act, context):
        return act.value
    answer = misbehave(act, context)
    # The gate is in Redis; nothing in this process could set an event.
    while act.gate and not _notes(os.getpid()).is_open(act.gate):  # noqa: ASYNC110
        await asyncio.sleep(POLL_S)
    return answer


@job("plan_act", queue="plan", policy=SOON)
async def plan_act(act: Act, context: JobContext) -> Any:
    return await _act_async(act, context)


@job("exec_act", queue="exec", policy=AT_ONCE)
def exec_act(act: Act, context: JobContext) -> Any:
    return _act(act, context)


@job("locator_act", queue="locator", policy={**AT_ONCE, "no_retry_errors": ["hopeless"]})
def locator_act(act: Act, context: JobContext) -> Any:
    return _act(act, context)


@job("ops_act", queue="ops", policy=SOON)
async def ops_act(act: Act, context: JobContext) -> Any:
    return await _act_async(act, context)


@job("hard_act", queue="exec", policy=NEVER, time_limit_s=1)
def hard_act(act: Act, context: JobContext) -> Any:
    return _act(act, context)


@job("soft_act", queue="exec", policy=NEVER, soft_time_limit_s=1, time_limit_s=60)
def soft_act(act: Act, context: JobContext) -> Any:
    return _act(act, context)


@job("raw_act", queue="exec", policy=NEVER)
def raw_act(payload: Any) -> Any:
    """What came, for chains and chords; leaves no note."""
    return payload


@job("sum_act", queue="plan", policy=NEVER)
async def sum_act(payload: Any) -> Any:
    return sum(payload)
