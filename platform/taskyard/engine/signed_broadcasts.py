"""Handle signed broadcasts to workers: verify the signature, answer, report to the mirror."""

from __future__ import annotations

from typing import Any, Final

from celery.worker.control import inspect_command
from redis.exceptions import RedisError

from taskyard.access import Action
from taskyard.access.broadcast_calls import WHOAMI, call_at
from taskyard.access.credential_faults import Fault
from taskyard.access.verify_credential import Verified, Verifier
from taskyard.clock import to_us
from taskyard.engine.count_denied_broadcasts import DeniedBroadcasts
from taskyard.errors import CredentialRefused, NotPermitted
from taskyard.records.denied_broadcast_reports import DeniedKind
from taskyard.records.verb_events import VerbEvent, VerbEvents
from taskyard.wire.redacted_logs import logger

__all__ = ["TARGET", "Broadcasts"]

log = logger(__name__)
# At the level DEBUG kombu logs each command with its arguments, also where an installed app has
# handlers of its own.
logger("kombu.pidbox")

TARGET: Final = "taskyard_target"
"""The field of a command's state with a short hash of the receivers; empty for all workers."""
_NOT_AUDITED: Final = "not_audited"
_NOT_PERMITTED: Final = "not_permitted"


class Broadcasts:
    """The signed broadcasts that one worker gets, with the answers to them.

    While a nonce is valid, the worker keeps its answer under it. A copy of a broadcast has the
    same nonce, so it gets the same answer and counts as the same call. Redis keeps the nonce too,
    for a worker that is started again.
    """

    def __init__(self, verifier: Verifier, events: VerbEvents, denied: DeniedBroadcasts) -> None:
        self.verifier, self.clock = verifier, verifier.clock
        self._verifier, self._events, self.denied = verifier, events, denied
        self._answers: dict[str, tuple[float, dict[str, Any]]] = {}

    def whoami(self, worker: str, credential: object, target: str = "") -> dict[str, Any]:
        """Return who has signed the broadcast, or why it is denied.

        `target` distinguishes broadcasts that were sent to other workers.
        """
        verb = Action.WHOAMI
        try:
            call = call_at(self._verifier.audience, verb, worker)
            verified = self._verifier.verify(credential, call)
        except CredentialRefused as error:
            # The sender is unknown, and its text may be large and false: only the cause is kept.
            self.denied.add(worker, DeniedKind(verb, error.code, target))
            return _denied(error.code, error)
        nonce = verified.nonce
        self._forget()
        if nonce not in self._answers:
            answer = self._answered(verb, worker, credential, verified)
            if answer.get("denied") == _NOT_AUDITED:
                return answer
            self._answers[nonce] = (verified.nonce_expires_at, answer)
        return self._answers[nonce][1]

    def _answered(
        self, verb: Action, worker: str, credential: object, verified: Verified
    ) -> dict[str, Any]:
        who, denied = verified.identity, None
        try:
            who.permit(verb)
        except NotPermitted as error:
            denied = error
        event = VerbEvent(
            verb=verb,
            worker=worker,
            at_us=to_us(self._verifier.clock.now()),
            code="" if denied is None else _NOT_PERMITTED,
            credential=str(credential),
        )
        try:
            bound = self._events.bind(event, verified.nonce, verified.nonce_expires_at)
        except (ValueError, RedisError) as error:
            return _not_audited(verb, worker, error)
        if bound.first and denied is not None:
            _log_denial(event)
        # A verb with an effect must do it only where this is the first call. A copy gets the first
        # call's answer, also if that worker was killed before it answered.
        if denied is None and bound.code:
            denied = NotPermitted(f"the first call with this credential was denied: {bound.code}")
        if denied is not None:
            return _denied(_NOT_PERMITTED, denied)
        return {"worker": worker, "subject": who.subject, "role": who.role.value, "via": who.via}

    def _forget(self) -> None:
        now_s = self._verifier.clock.now().timestamp()
        gone = [nonce for nonce, (until, _) in self._answers.items() if until < now_s]
        for nonce in gone:
            del self._answers[nonce]


def _log_denial(event: VerbEvent) -> None:
    log.warning(
        "worker %s denied a broadcast of %s: %s",
        event.worker,
        event.verb,
        event.code,
        extra={"action": "broadcast_denied", "verb": event.verb.value, "code": event.code},
    )


def _not_audited(verb: Action, worker: str, error: ValueError | RedisError) -> dict[str, Any]:
    log.error(
        "worker %s does not carry out the broadcast of %s, because it cannot be audited: %s",
        worker,
        verb,
        error,
        extra={"action": "verb_not_audited", "verb": verb.value},
    )
    if isinstance(error, ValueError):
        why = f"the audit event would not be stored: {error}"
    else:
        why = "Redis did not store the audit event of this broadcast. Try again when Redis answers"
    return _denied(_NOT_AUDITED, why)


def _denied(code: str, why: object) -> dict[str, Any]:
    return {"denied": code, "why": str(why)}


@inspect_command(  # type: ignore[untyped-decorator]  # Celery has no types
    name=WHOAMI,
    args=[("taskyard_credential", str)],
    signature="<credential>",
    help="Say who has signed this broadcast; see taskyard whoami",
)
def whoami(state: Any, taskyard_credential: object = None, **_: Any) -> dict[str, Any]:
    """Say who has signed this broadcast."""
    context = getattr(state.app, "taskyard", None)
    if context is None:
        return _denied(
            Fault.UNKNOWN_KEY,
            "Taskyard is not installed on this worker's app, so "
            "the worker cannot verify signatures",
        )
    target = str(state.get(TARGET) or "")
    answer: dict[str, Any] = context.broadcasts.whoami(
        str(state.hostname), taskyard_credential, target
    )
    return answer
