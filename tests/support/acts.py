"""What the handlers of the tests do: one act, described by the payload.

Where they note their runs and wait is the business of each suite: support/handlers.py has Redis for
it, conformance/handlers.py a folder.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from taskyard.errors import CodedError
from taskyard.jobs import JobContext

__all__ = ["AT_ONCE", "NEVER", "POLL_S", "Act", "World", "delayed", "hang_in_c", "misbehave"]

POLL_S = 0.01
AT_ONCE = {"max_retries": 2, "backoff_strategy": "immediate", "base_delay_ms": 0, "jitter": False}
NEVER = {"max_retries": 0, "backoff_strategy": "immediate", "base_delay_ms": 0}


def hang_in_c() -> None:
    """Sleep for ten minutes without releasing the interpreter's lock: no exception gets in."""
    ctypes.PyDLL(None).sleep(600)


def delayed(base_delay_ms: int) -> dict[str, Any]:
    """A policy whose retries wait in the delay store."""
    return {**AT_ONCE, "backoff_strategy": "linear", "base_delay_ms": base_delay_ms}


class Panic(BaseException):
    """As an extension in another language has it."""


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class World:
    """What a stage without processes and without waiting does instead."""

    die: Callable[[], None] = staticmethod(_die)
    pass_s: Callable[[float], None] = staticmethod(time.sleep)


class Act(BaseModel):
    """`do` says what, for the first `times` runs (-1: always); otherwise it returns `value`.

    `gate` names the gate at which it waits, where the suite has gates.
    """

    do: str = "return"
    times: int = -1
    value: Any = None
    gate: str = ""
    code: str = "flaky"
    label: str = ""
    retry_after_s: float | None = None

    def misbehaves_in(self, run: int) -> bool:
        """Whether this run, counted from 1, is one of those."""
        return self.times < 0 or run <= self.times


def misbehave(act: Act, context: JobContext) -> Any:
    """Do all that needs no store, and return the handler's value."""
    _end_the_run(act)
    match act.do:
        case "hoard":
            return b"x" * (act.value * 1_048_576)
        case "big":
            return "x" * 300_000
        case "not_json":
            return {"a set": {1, 2}}
        case "nan":
            return {"a number": float("nan")}
        case "token":
            return context.token
        case "report":
            context.progress(0.5, "half way")
    return act.value


def _end_the_run(act: Act) -> None:
    match act.do:
        case "fail":
            raise CodedError(
                act.code,
                f"told to fail with {act.code}",
                details={"hint": "told"},
                retry_after_s=act.retry_after_s,
            )
        case "kill":
            World.die()
        case "hang in C":
            hang_in_c()
        case "exit":
            raise SystemExit(3)
        case "memory":
            raise MemoryError("told to")
        case "panic":
            raise Panic("in an extension")
