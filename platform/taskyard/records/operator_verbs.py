"""The scripts of operators' verbs as methods: each compares what the operator saw, then acts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redis.exceptions import RedisError

from taskyard.jobs.states import Event, State
from taskyard.records.script_calls import ScriptCall, ScriptCalls
from taskyard.records.script_replies import (
    CancelRequested,
    EndedAttempt,
    ReplyTo,
    VerbApplied,
    VerbRefused,
)
from taskyard.store import Argument

__all__ = ["LiveVerbCall", "OperatorVerbs", "VerbAnswer", "VerbTarget"]

VerbAnswer = VerbApplied | CancelRequested | VerbRefused


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


@dataclass(frozen=True, slots=True)
class LiveVerbCall:
    """One call of a verb; `own` is its own argument: a result in bytes, or the new queue."""

    event: Event
    target: VerbTarget
    request_id: str
    operator: str
    own: bytes | str | None = None


class OperatorVerbs:
    """The verbs on live jobs, each with the request that asks for it and the operator's name.

    A repeated request gets its first answer. A job without a record gets one, so that its message
    meets the verb. `kept_result` names the key of the record's copy of a result.
    """

    def __init__(self, calls: ScriptCalls, kept_result: Callable[[str], str]) -> None:
        self._calls, self._kept_result = calls, kept_result

    def many(self, calls: Sequence[LiveVerbCall]) -> list[VerbAnswer | RedisError]:
        """Call verbs on many jobs in one round trip; return the answers in the calls' order.

        An error stands for each call that failed. Raises redis-py's error if the server is lost.
        """
        answers = self._calls.each([self._script_call(one) for one in calls])
        return [each if isinstance(each, RedisError) else _parsed(each) for each in answers]

    def cancel(
        self, target: VerbTarget, request_id: str, operator: str
    ) -> VerbApplied | CancelRequested | VerbRefused:
        """Cancel a job now, or ask its running attempt to stop."""
        return self._run(Event.CANCEL, target, request_id, operator)

    def abort(
        self, target: VerbTarget, request_id: str, operator: str
    ) -> VerbApplied | VerbRefused:
        """Abort a job now; the outcome of a running attempt will be dropped."""
        return _applied(self._run(Event.ABORT, target, request_id, operator))

    def force_complete(
        self, target: VerbTarget, request_id: str, operator: str, result: bytes
    ) -> VerbApplied | VerbRefused:
        """Complete a job now with `result`, Celery's encoded result."""
        return _applied(self._run(Event.FORCE_COMPLETE, target, request_id, operator, result))

    def reroute(
        self, target: VerbTarget, request_id: str, operator: str, to_queue: str
    ) -> VerbApplied | VerbRefused:
        """Move a job to another queue; its message follows when a worker takes it."""
        return _applied(self._run(Event.REROUTE, target, request_id, operator, to_queue))

    def _run(
        self,
        event: Event,
        target: VerbTarget,
        request_id: str,
        operator: str,
        own: bytes | str | None = None,
    ) -> VerbAnswer:
        call = LiveVerbCall(event, target, request_id, operator, own)
        return _parsed(self._calls.one(self._script_call(call)))

    def _script_call(self, call: LiveVerbCall) -> ScriptCall:
        target = call.target
        arguments = _arguments(target, call.request_id, call.operator)
        if call.own is not None:
            arguments.append(call.own)
        if call.event is Event.FORCE_COMPLETE:
            arguments.append(self._kept_result(target.job_id))
        return ScriptCall(call.event.value, target.job_id, arguments)


def _arguments(target: VerbTarget, request_id: str, operator: str) -> list[Argument]:
    """Return the arguments that every verb's script has after the job's id."""
    seen = (target.epoch, target.generation, target.version)
    arguments: list[Argument] = ["" if part is None else part for part in seen]
    return [*arguments, request_id, operator, target.job_type, target.queue]


def _applied(answer: VerbAnswer) -> VerbApplied | VerbRefused:
    if isinstance(answer, CancelRequested):
        raise TypeError(f"expected that the verb was applied or refused, got {answer!r}")
    return answer


def _parsed(raw: Sequence[bytes]) -> VerbAnswer:
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
