"""Parse a script's reply into the value that callers match on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from taskyard.clock import from_us, seconds_of
from taskyard.errors import KillSwitchOn
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.jobs.states import State
from taskyard.records.script_replies import (
    Admitted,
    BeginAnswer,
    Decided,
    Done,
    Ended,
    Forward,
    Held,
    Reused,
    Run,
    Stale,
    Switched,
    UnknownHistory,
)
from taskyard.switches import Mode, SwitchField, SwitchState
from taskyard.wire.control_characters import escaped

__all__ = ["parse_admitted", "parse_begin", "parse_decided", "parse_forward"]


# As long as an operator's reason may be.
_REASON: Final = 2_000
_STATES: Final = {state.value.encode(): state for state in State}


def parse_admitted(raw: Sequence[bytes]) -> Admitted | KillSwitchOn:
    """Parse the reply of `admit` to one job; a refusal is an error of its own, to be raised."""
    if raw[0] == b"refused":
        return _refusal(raw[1].decode(), raw[2], int(raw[3]))
    return Admitted(
        created=raw[0] == b"1",
        state=_STATES[raw[1]],
        epoch=int(raw[2]),
        generation=int(raw[3]),
        seq=int(raw[4]),
        published=raw[5] == b"1",
    )


def _refusal(field: str, value: bytes, now_us: int) -> KillSwitchOn:
    try:
        state = SwitchState.parse(value)
    except ValueError:
        again_s = KillSwitchOn.AGAIN_S
        return KillSwitchOn(field, reason="", since=None, until=None, retry_after=again_s)
    left_s = math.ceil(seconds_of(state.until_us - now_us))
    return KillSwitchOn(
        field,
        # Who can write in Redis may write any text; this one goes to logs and answers.
        reason=escaped(" ".join(state.reason.split()))[:_REASON],
        since=from_us(state.since_us),
        until=from_us(state.until_us) if state.until_us else None,
        retry_after=max(left_s, 1) if state.until_us else KillSwitchOn.AGAIN_S,
    )


def parse_decided(raw: Sequence[bytes]) -> Decided:
    """Parse a reply that starts with `decided`."""
    return Decided(
        decision=Decision(raw[1].decode()),
        seq=int(raw[2]),
        due_us=int(raw[3]),
        epoch=int(raw[4]),
        generation=int(raw[5]),
    )


def parse_forward(raw: Sequence[bytes]) -> Forward:
    """Parse a reply that starts with `forward`."""
    return Forward(raw[1].decode(), int(raw[2]), int(raw[3]), int(raw[4]))


def _run(raw: Sequence[bytes]) -> Run:
    attempt, token, epoch, generation, seq, attempts = (int(value) for value in raw[1:7])
    return Run(attempt, token, epoch, generation, seq, attempts, raw[7].decode())


def parse_begin(  # noqa: C901, PLR0911 - one answer a line
    raw: Sequence[Any],
) -> BeginAnswer:
    """Parse the reply of `begin` or `dead_letter`."""
    match raw[0]:
        case b"run":
            return _run(raw)
        case b"done":
            # A missing result is nil in Lua, which shortens the reply.
            return Done(raw[1] if len(raw) > 1 and raw[1] else None)
        case b"decided":
            return parse_decided(raw)
        case b"held":
            return Held(int(raw[1]))
        case b"stale":
            return Stale(State(raw[1].decode()))
        case b"ended":
            return Ended(State(raw[1].decode()))
        case b"forward":
            return parse_forward(raw)
        case b"reused":
            return Reused(raw[1].decode(), State(raw[2].decode()), int(raw[3]))
        case b"switched":
            field = SwitchField.parse(raw[1].decode())
            return Switched(field, int(raw[2]), Mode(raw[3].decode()))
        case b"unknown_history":
            return UnknownHistory()
        case other:
            raise ValueError(
                f"the script begin answered {other!r}, which this version does not know"
            )
