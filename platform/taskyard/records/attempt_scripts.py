"""The scripts of a job's attempts as methods: begin, renew, finish, and how a delivery ends.

Each is one round trip and gives the same answer when it is repeated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from taskyard.clock import us_of
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.jobs.states import Event, State
from taskyard.records.job_keys import Keys
from taskyard.records.parse_replies import parse_begin, parse_decided, parse_forward
from taskyard.records.script_calls import ScriptCall, ScriptCalls
from taskyard.records.script_replies import (
    BeginAnswer,
    DeadLetterAnswer,
    Ended,
    Finished,
    Forward,
    LeaseEnd,
    NotHeld,
    Requeue,
    Superseded,
)
from taskyard.settings import Settings
from taskyard.store import Argument
from taskyard.wire.stamp_header import Stamp

__all__ = ["AttemptScripts"]


class AttemptScripts:
    """The scripts that workers call; every method raises redis-py's errors.

    `domain_of` returns the domain that owns a job type, empty for none.
    """

    def __init__(
        self,
        calls: ScriptCalls,
        keys: Keys,
        settings: Settings,
        domain_of: Callable[[str], str],
    ) -> None:
        self._calls, self.settings, self._domain_of = calls, settings, domain_of
        self.keys = keys
        self._window_us = us_of(settings.dedupe_window_s)

    def begin(
        self,
        job_id: str,
        stamp: Stamp | None,
        *,
        holder: str,
        worker: str,
        job_type: str,
        queue: str,
        process: str = "",
    ) -> BeginAnswer:
        """Ask for the right to run one attempt.

        `holder` identifies the delivery, `process` the process that works on the delivery. A repeat
        by the same process with the same delivery gets the same answer. Another process with the
        same delivery takes over from a dead process. A switch that is on for the job, its queue,
        its type or its domain keeps it from running (`Switched`).
        """
        arguments = [
            *_position(stamp),
            holder,
            worker,
            us_of(self.settings.lease_s),
            self.settings.death_limit,
            self._window_us,
            0 if stamp is None or stamp.sent_us is None else stamp.sent_us,
            job_type,
            queue,
            process,
            0 if stamp is None else stamp.nesting,
            self._domain_of(job_type),
        ]
        keys = [*self.keys.script_keys(job_id), self.keys.switches]
        return parse_begin(self._call("begin", job_id, arguments, keys))

    def renew(self, job_id: str, token: int) -> tuple[bool, str]:
        """Renew the lease; return whether the attempt keeps it, and a detail.

        The detail is the request of an operator who cancels the attempt, or the state that ended
        the lease.
        """
        answer, detail = self._call("renew", job_id, [token, us_of(self.settings.lease_s)])
        return answer == b"kept", detail.decode()

    def progress(self, job_id: str, token: int, fraction: float, note: str) -> bool:
        """Write progress; return False if the attempt with this token no longer holds the job."""
        body = json.dumps({"fraction": fraction, "note": note})
        return bool(self._call("progress", job_id, [token, body]))

    def finish(
        self,
        job_id: str,
        decision: Decision,
        *,
        epoch: int,
        generation: int,
        seq: int,
        token: int | None = None,
        holder: str = "",
        result: bytes = b"",
        delay_s: float = 0,
        cause: bytes = b"",
        code: str = "",
        category: str = "",
        message: str = "",
        stopped: bool = False,
    ) -> Finished | Superseded | Forward:
        """Record the decision about the attempt that `token` (or the delivery `holder`) holds.

        If an operator has cancelled the attempt, the job is cancelled instead, unless the attempt
        returned a result without having `stopped` for the request.
        """
        arguments = [
            "" if token is None else token,
            holder,
            decision,
            epoch,
            generation,
            seq,
            result,
            self.settings.result_ttl_s * 1000,
            self._window_us,
            us_of(delay_s),
            cause,
            code,
            category,
            message,
            self.keys.result(job_id),
            "1" if stopped else "",
        ]
        raw = self._call("finish", job_id, arguments)
        if raw[0] == b"forward":
            return parse_forward(raw)
        if raw[0] == b"superseded":
            return Superseded(State(raw[1].decode()), int(raw[2]))
        return Finished(State(raw[1].decode()), *(int(value) for value in raw[2:6]))

    def release(self, job_id: str, holder: str) -> LeaseEnd:
        """End this delivery's attempt without a decision and without counting it (drain)."""
        return self._end(job_id, holder, Event.RELEASE, "")

    def lose(self, job_id: str, holder: str, evidence: str) -> LeaseEnd:
        """End this delivery's attempt because its process died.

        Too many deaths make a poison letter.
        """
        return self._end(job_id, holder, Event.LOSE, evidence)

    def _end(self, job_id: str, holder: str, event: Event, evidence: str) -> LeaseEnd:
        raw = self._call("release", job_id, [holder, event, self.settings.death_limit, evidence])
        match raw[0]:
            case b"decided":
                return parse_decided(raw)
            case b"requeue":
                return Requeue(State(raw[1].decode()))
            case b"ended":
                return Ended(State(raw[1].decode()))
            case b"forward":
                return parse_forward(raw)
            case _:
                return NotHeld(State(raw[1].decode()))

    def dead_letter(
        self,
        job_id: str,
        stamp: Stamp | None,
        *,
        job_type: str,
        queue: str,
        cause: bytes,
        code: str,
        category: str,
        message: str,
    ) -> DeadLetterAnswer:
        """Dead-letter a message about which no attempt could decide."""
        arguments: list[Argument] = [
            *_position(stamp),
            job_type,
            queue,
            cause,
            code,
            category,
            message,
            0 if stamp is None else stamp.nesting,
            self._domain_of(job_type),
        ]
        answer = parse_begin(self._call("dead_letter", job_id, arguments))
        if not isinstance(answer, DeadLetterAnswer):
            expected = "Decided, Held, Stale, Ended, Forward or Reused"
            raise TypeError(f"expected the script dead_letter to answer {expected}, got {answer!r}")
        return answer

    def deliver(self, job_id: str) -> int:
        """Count one more delivery of a redelivered message and return the count."""
        return int(self._call("deliver", job_id, [self._window_us // 1000]))

    def forget_deliveries(self, job_ids: Sequence[str]) -> None:
        """Set the deliveries of jobs back to 0, in one round trip; raises redis-py's errors."""
        self._calls.all([ScriptCall("forget_deliveries", job_id, []) for job_id in job_ids])

    def _call(
        self,
        name: str,
        job_id: str,
        arguments: Sequence[Argument],
        keys: Sequence[str] | None = None,
    ) -> Any:
        return self._calls.one(ScriptCall(name, job_id, arguments, keys))


def _position(stamp: Stamp | None) -> list[str | int]:
    if stamp is None:
        return ["", 0, 0]
    # Epoch 0: the message does not know its epoch, only how often Celery itself has retried it, or
    # has replaced it by another task.
    return [stamp.epoch or "", stamp.generation, stamp.seq]
