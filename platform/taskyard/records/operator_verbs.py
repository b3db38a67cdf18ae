"""The scripts of operators' verbs as methods: each compares what the operator saw, then acts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from taskyard.jobs.states import State
from taskyard.records.script_replies import (
    CancelRequested,
    EndedAttempt,
    ReplyTo,
    VerbApplied,
    VerbRefused,
)
from taskyard.store import Argument

__all__ = ["OperatorVerbs", "VerbTarget", "parse_verb", "verb_arguments"]


@dataclass(frozen=True, slots=True)
class VerbTarget:
    """The job that an operator means, as the operator saw it; None is not compared.

    `job_type` and `queue` are for a job that has no record yet.
    """

    job_id: str
    epoch: int | None = None
    generation: int | None = None
    version: int | None = None
    job_type: str = ""
    queue: str = ""


class OperatorVerbs:
    """The verbs on live jobs, each with the request that asks for it and the operator's name.

    A repeated request gets its first answer. A job without a record gets one, so that its message
    meets the verb. `call` runs a script of the records; `kept_result` names the key of the record's
    copy of a result.
    """

    def __init__(
        self,
        call: Callable[[str, str, Sequence[Argument]], Any],
        kept_result: Callable[[str], str],
    ) -> None:
        self._call, self._kept_result = call, kept_result

    def cancel(
        self, target: VerbTarget, request_id: str, operator: str
    ) -> VerbApplied | CancelRequested | VerbRefused:
        """Cancel a job now, or ask its running attempt to stop."""
        return parse_verb(self._run("cancel", target, request_id, operator))

    def abort(
        self, target: VerbTarget, request_id: str, operator: str
    ) -> VerbApplied | VerbRefused:
        """Abort a job now; the outcome of a running attempt will be dropped."""
        return _applied(self._run("abort", target, request_id, operator))

    def force_complete(
        self, target: VerbTarget, request_id: str, operator: str, result: bytes
    ) -> VerbApplied | VerbRefused:
        """Complete a job now with `result`, Celery's encoded result."""
        kept = self._kept_result(target.job_id)
        return _applied(self._run("force_complete", target, request_id, operator, result, kept))

    def reroute(
        self, target: VerbTarget, request_id: str, operator: str, to_queue: str
    ) -> VerbApplied | VerbRefused:
        """Move a job to another queue; its message follows when a worker takes it."""
        return _applied(self._run("reroute", target, request_id, operator, to_queue))

    def _run(
        self, name: str, target: VerbTarget, request_id: str, operator: str, *own: Argument
    ) -> Any:
        arguments = verb_arguments(target, request_id, operator)
        return self._call(name, target.job_id, [*arguments, *own])


def verb_arguments(target: VerbTarget, request_id: str, operator: str) -> list[Argument]:
    """Return the arguments that every verb's script has after the job's id."""
    seen = (target.epoch, target.generation, target.version)
    arguments: list[Argument] = ["" if part is None else part for part in seen]
    return [*arguments, request_id, operator, target.job_type, target.queue]


def _applied(raw: Sequence[bytes]) -> VerbApplied | VerbRefused:
    answer = parse_verb(raw)
    if isinstance(answer, CancelRequested):
        raise TypeError(f"expected that the verb was applied or refused, got {answer!r}")
    return answer


def parse_verb(raw: Sequence[bytes]) -> VerbApplied | CancelRequested | VerbRefused:
    """Return a verb's answer from its script's reply."""
    kind = raw[0]
    if kind == b"refused":
        epoch, generation, version = (int(value) for value in raw[3:6])
        return VerbRefused(raw[1].decode(), State(raw[2].decode()), epoch, generation, version)
    epoch, generation, version = (int(value) for value in raw[2:5])
    already, worker, token = raw[5] == b"1", raw[6].decode("utf-8", "replace"), int(raw[7])
    if kind == b"requested":
        place = (epoch, generation, version)
        return CancelRequested(*place, already, worker, token, int(raw[8]))
    state = State(raw[1].decode())
    letter, attempt = raw[9] == b"1", EndedAttempt(raw[10].decode())
    place = (epoch, generation, version)
    reply = ReplyTo(raw[11].decode(), raw[12].decode()) if raw[11] else None
    seq = int(raw[13])
    return VerbApplied(state, *place, already, worker, token, letter, attempt, reply, seq)
