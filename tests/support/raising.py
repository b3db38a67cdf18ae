"""Handlers that raise what is no ordinary exception: by name, each for its first `times` runs."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from pydantic import BaseModel

from support.acts import AT_ONCE, NEVER, POLL_S
from support.handlers import _notes
from support.odd_exceptions import RAISED
from taskyard.jobs import JobContext, job

__all__ = ["Raise"]


class Raise(BaseModel):
    """Raise what `name` says, for the first `times` runs; -1: always."""

    name: str
    times: int = -1


def _raise(act: Raise, context: JobContext) -> str:
    runs = _notes(os.getpid()).note(context, "")
    if act.times < 0 or runs <= act.times:
        raise RAISED[act.name]()
    return "sound"


@job("raise_act", queue="exec", policy=NEVER)
def raise_act(act: Raise, context: JobContext) -> str:
    return _raise(act, context)


@job("raise_retried", queue="exec", policy=AT_ONCE)
def raise_retried(act: Raise, context: JobContext) -> str:
    return _raise(act, context)


@job("raise_async", queue="exec", policy=NEVER)
async def raise_async(act: Raise, context: JobContext) -> str:
    await asyncio.sleep(0)
    return _raise(act, context)


@job("clean_up_act", queue="exec", policy=NEVER)
def clean_up_act(payload: Any, context: JobContext) -> str:
    """Wait in the first run; whatever ends the wait, the clean-up fails."""
    if _notes(os.getpid()).note(context, "") > 1:
        return "sound"
    try:
        while True:
            time.sleep(POLL_S)
    finally:
        raise ValueError("the connection to roll back is closed")
