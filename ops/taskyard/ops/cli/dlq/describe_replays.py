"""A letter's replays, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from taskyard.control.await_relay import PENDING
from taskyard.control.replay_history import ReplayEntry, ReplayHistory
from taskyard.jobs.letter_states import LetterStatus, ReplayOutcome
from taskyard.ops.cli.time_text import moment

__all__ = ["replay_history", "waiting"]


def replay_history(letter: dict[str, Any], history: ReplayHistory) -> Iterator[tuple[str, object]]:
    """Return names and values: is a replay allowed, was one made, by whom, its outcome."""
    yield "replayable", "yes" if history.why_not is None else f"no: {history.why_not}"
    for replay in history.replays:
        yield "replayed", f"{moment(replay.at)} by {_who(replay)}"
        yield "  reason", replay.reason
        yield "  into", _into(replay)
    if letter["status"] == LetterStatus.REPLAYED:
        yield "  ended", _end(letter, history)


def _who(replay: ReplayEntry) -> str:
    behalf = f", on behalf of {replay.on_behalf_of}" if replay.on_behalf_of else ""
    return f"{replay.by}{behalf}"


def _into(replay: ReplayEntry) -> str:
    ways = [f"queue {replay.queue}"] if replay.queue else []
    ways += ["edited payload"] if replay.edited else []
    ways += ["forced"] if replay.forced else []
    head, _, why = replay.outcome.partition(": ")
    text = waiting(why) if head == PENDING else replay.outcome
    return f"generation {replay.generation} ({', '.join([*ways, text])})"


def waiting(why: str) -> str:
    """Describe a replay that the relay has not carried out, and what prevents the replay."""
    if not why:
        return "the relay has not answered yet and will carry it out"
    return f"the relay could not carry it out yet and tries again: {why}"


def _end(letter: dict[str, Any], history: ReplayHistory) -> str:
    match letter["replay_outcome"]:
        case ReplayOutcome.SUCCESS:
            return "success"
        case ReplayOutcome.FAILED if history.next_letter is not None:
            return f"failed: its new letter is {history.next_letter}"
        case ReplayOutcome.FAILED:
            return "failed"
    if history.job_state is None or history.job_generation == letter["generation"]:
        return "not known yet: the new generation is not in the ledger"
    return f"no outcome yet: the job is {history.job_state}"
