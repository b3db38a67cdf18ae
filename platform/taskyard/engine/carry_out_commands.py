"""Carry out a control command of Celery that is audited or mapped: who, may they, audit, act.

A command without a credential is that of `broker:unverified`, or is denied, as the setting
`control_commands` says. Each worker that gets an audited command carries it out, as in Celery; the
audit log has the request once, and the outcome at the first worker that had one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from celery.exceptions import WorkerShutdown
from redis.exceptions import RedisError

from taskyard.access import Action, Identity
from taskyard.access.broadcast_calls import UNVERIFIED, command_at, request_id_of_command
from taskyard.access.credential_faults import Fault
from taskyard.clock import to_us
from taskyard.engine.control_command_table import COMMANDS, Rule, verb_of
from taskyard.engine.revocation import Revocation
from taskyard.engine.revoke_by_command import Revoked, revoke
from taskyard.engine.worker_context import WorkerContext
from taskyard.errors import CredentialRefused, InvalidPayload, NotPermitted
from taskyard.records.command_events import CommandEvent, Opened
from taskyard.records.denied_broadcast_reports import DeniedKind
from taskyard.wire.redacted_logs import logger
from taskyard.wire.redaction import redact_text

__all__ = ["CommandReceived", "carry_out"]

log = logger(__name__)

_APPLIED: Final = "applied"
_DENIED: Final = "denied"
_NOT_AUDITED: Final = "not_audited"
_NOT_PERMITTED: Final = "not_permitted"
_AT_ONE_QUEUE: Final = (Action.FLOWER_ADD_CONSUMER, Action.FLOWER_CANCEL_CONSUMER)

RunAsCelery = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class CommandReceived:
    """A command as it came: `broadcast` is a hash of its message, the same in every worker.

    `arguments` are without the credential; `target` is a hash of the receivers.
    """

    name: str
    arguments: Mapping[str, Any]
    credential: object
    broadcast: str
    target: str


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who sent the command; `identity` is None without a credential."""

    name: str
    broadcast: str
    identity: Identity | None = None
    credential: str = ""

    @property
    def request_id(self) -> str:
        return str(request_id_of_command(self.broadcast, signed=self.identity is not None))


def carry_out(
    context: WorkerContext, worker: str, received: CommandReceived, run: RunAsCelery
) -> Any:
    """Carry out a command, and return the reply to its sender.

    `run` does what Celery does. Raises what Celery's command raises.
    """
    verb = verb_of(received.name, received.arguments)
    if verb is None:
        raise ValueError(f"the command {received.name} is neither audited nor mapped")
    try:
        caller = _caller(context, worker, received, verb)
    except CredentialRefused as error:
        # Anyone can send thousands: they are counted, and logged as numbers.
        context.broadcasts.denied.add(worker, DeniedKind(verb, error.code, received.target))
        return _refusal(error.code, error)
    arguments = json.dumps(received.arguments, skipkeys=True, default=str)
    at_us = to_us(context.broadcasts.clock.now())
    event = CommandEvent(
        verb,
        worker,
        at_us,
        received.name,
        caller.broadcast,
        arguments,
        credential=caller.credential,
    )
    return _Carrying(context, received, caller, event).carry_out(run)


def _caller(
    context: WorkerContext, worker: str, received: CommandReceived, verb: Action
) -> _Caller:
    """Return the sender; raises `CredentialRefused`."""
    if received.credential is None:
        if context.settings.control_commands == "signed":
            raise CredentialRefused(
                Fault.UNSIGNED,
                f"this worker takes {received.name} only with a credential (its setting "
                f"control_commands is signed). Sign it: taskyard sign {received.name}",
            )
        return _Caller(UNVERIFIED, received.broadcast)
    verifier = context.broadcasts.verifier
    try:
        call = command_at(
            context.settings.namespace, verb, received.name, received.arguments, worker
        )
    except InvalidPayload as error:
        raise CredentialRefused(Fault.MALFORMED, str(error)) from None
    verified = verifier.verify(received.credential, call)
    who = verified.identity
    return _Caller(who.subject, verified.nonce, who, str(received.credential))


class _Carrying:
    """One command that one worker carries out."""

    def __init__(
        self,
        context: WorkerContext,
        received: CommandReceived,
        caller: _Caller,
        event: CommandEvent,
    ) -> None:
        self._context, self._received, self._caller = context, received, caller
        self._event, self._events = event, context.command_events

    def carry_out(self, run: RunAsCelery) -> Any:
        try:
            self._permit()
        except NotPermitted as error:
            self._answer(_DENIED)
            return _refusal(_NOT_PERMITTED, error)
        mapped = COMMANDS[self._received.name].rule is Rule.MAPPED and self._context.has_jobs
        try:
            opened = self._events.request(self._event, self._caller.request_id)
        except (ValueError, RedisError) as error:
            if mapped or self._caller.identity is not None:
                return self._not_audited(error)
            # Without a credential its audit row is worth little, and a worker must be able to end
            # while Redis does not answer.
            self._log_unaudited(error)
            return run(self._received.arguments)
        return self._revoke(run, opened) if mapped else self._run(run, opened)

    def _permit(self) -> None:
        who, verb = self._caller.identity, self._event.verb
        if who is None:
            return
        who.permit(verb)
        if verb in _AT_ONE_QUEUE:
            arguments = self._received.arguments
            queue = str(arguments.get("queue", ""))
            who.permit_on(verb, queues=[queue], domain=None)
            if who.queues is not None and any(
                value for name, value in arguments.items() if name != "queue"
            ):
                # An exchange or a key may bind the queue to the messages of another one.
                raise NotPermitted(
                    f"{who.subject} is bound to queues and may give only the argument 'queue' to "
                    f"{self._received.name}, got: {', '.join(sorted(arguments))[:200]}"
                )

    def _run(self, run: RunAsCelery, opened: Opened) -> Any:
        """Do what Celery does; a copy of a signed command is done once."""
        if self._caller.identity is not None and not opened.first_here:
            return {"ok": f"this worker has taken this {self._received.name} already"}
        try:
            reply = run(self._received.arguments)
        except WorkerShutdown:
            self._answer(_APPLIED)
            raise
        except Exception as error:
            self._answer(_refused(error))
            raise
        failed = reply["error"] if isinstance(reply, Mapping) and "error" in reply else None
        self._answer(_APPLIED if failed is None else _refused(failed))
        return reply

    def _revoke(self, run: RunAsCelery, opened: Opened) -> Any:
        """End our jobs, and have Celery end the others."""
        caller = self._caller
        revocation = Revocation(self._event.verb, caller.request_id, caller.name, caller.identity)
        name, arguments = self._received.name, self._received.arguments
        try:
            done = revoke(
                self._context, name, arguments, revocation, run, done=bool(opened.outcome)
            )
        except InvalidPayload as error:
            self._answer(_refused(error))
            return {"error": str(error)}
        except RedisError as error:
            log.error(
                "this worker did not carry out the control command %s, because Redis did not "
                "answer: %s",
                name,
                error,
                extra={"action": "command_failed", "command": name},
            )
            return {"error": "Redis did not answer. Send the command again when it answers"}
        if opened.outcome and not done.jobs and done.celery is None:
            return {"ok" if opened.outcome == _APPLIED else "error": opened.outcome}
        self._answer(done.outcome, done)
        return done.reply

    def _answer(self, outcome: str, done: Revoked | None = None) -> None:
        """Append the outcome; one that is lost leaves the request's row alone."""
        jobs = {} if done is None else {name: job.short for name, job in done.jobs.items()}
        event = replace(self._event, outcome=outcome, jobs=json.dumps(jobs))
        log.warning(
            "the control command %s by %s: %s",
            event.command,
            self._caller.name,
            redact_text(outcome),
            extra={
                "action": "control_command",
                "command": event.command,
                "request_id": self._caller.request_id,
            },
        )
        try:
            self._events.answer(event, self._caller.request_id)
        except (ValueError, RedisError) as error:
            self._log_unaudited(error)

    def _not_audited(self, error: ValueError | RedisError) -> dict[str, str]:
        self._log_unaudited(error)
        if isinstance(error, ValueError):
            return _refusal(_NOT_AUDITED, f"the audit event would not be stored: {error}")
        return _refusal(
            _NOT_AUDITED,
            "Redis did not store the audit event of this command. Try again when Redis answers",
        )

    def _log_unaudited(self, error: ValueError | RedisError) -> None:
        log.error(
            "the control command %s by %s is not in the audit log: %s",
            self._received.name,
            self._caller.name,
            error,
            extra={"action": "command_not_audited", "command": self._received.name},
        )


def _refused(why: object) -> str:
    return redact_text(f"refused: {why}")


def _refusal(code: str, why: object) -> dict[str, str]:
    """Return a denial in the form that Celery's clients show as an error."""
    return {"error": str(why), "denied": code}
