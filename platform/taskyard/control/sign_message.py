"""Sign a message that this process publishes, with its own identity."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from taskyard import database
from taskyard.access import Identity
from taskyard.access.broadcast_calls import call_of_command
from taskyard.access.credential import Call, sign
from taskyard.access.key_files import read_ring, read_signing_key
from taskyard.access.operator_task_call import call_of_task
from taskyard.access.operator_task_table import OPERATOR_TASKS
from taskyard.access.verify_credential import Verifier
from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.control.authenticate_operator import identify, local_identity
from taskyard.engine.control_command_table import verb_of
from taskyard.errors import InvalidPayload, MissingSetting
from taskyard.settings import Settings
from taskyard.wire.credential_argument import CREDENTIAL

__all__ = ["identity_here", "sign_call", "sign_command", "sign_task"]


def sign_task(
    settings: Settings, task: str, arguments: Mapping[str, Any], clock: Clock = SYSTEM_CLOCK
) -> dict[str, Any]:
    """Return an operator task's named arguments with a new credential for them.

    Raises `InvalidPayload` if the arguments lack the whole id of the job or dead letter on which
    the verb acts, and the errors of `sign_call`.
    """
    plain = {name: value for name, value in arguments.items() if name != CREDENTIAL}
    _check_target(task, plain, OPERATOR_TASKS[task].target)
    call = call_of_task(settings.namespace, task, plain)
    return {**plain, CREDENTIAL: sign_call(settings, call, clock)}


def sign_command(
    settings: Settings, command: str, arguments: Mapping[str, Any], clock: Clock = SYSTEM_CLOCK
) -> dict[str, Any]:
    """Return the arguments of a control command of Celery with a new credential for them.

    Every worker takes the credential. Raises `InvalidPayload` for a command that needs none, and
    the errors of `sign_call`.
    """
    plain = {name: value for name, value in arguments.items() if name != CREDENTIAL}
    verb = verb_of(command, plain)
    if verb is None:
        raise InvalidPayload(f"the control command {command[:80]!r} needs no credential")
    call = call_of_command(settings.namespace, verb, command, plain)
    return {**plain, CREDENTIAL: sign_call(settings, call, clock)}


def _check_target(task: str, arguments: Mapping[str, Any], name: str) -> None:
    """Refuse here what every worker would: the start of an id may name another target later."""
    target = arguments.get(name)
    if not isinstance(target, str):
        raise InvalidPayload(
            f"{task} needs the named argument {name!r}, a text; got: {sorted(arguments)}"
        )
    try:
        uuid.UUID(target)
    except ValueError:
        raise InvalidPayload(
            f"{task} needs a whole id in the argument {name!r}, a UUID; got: {target[:60]!r}. "
            "See: taskyard dlq list --json"
        ) from None


def sign_call(settings: Settings, call: Call, clock: Clock = SYSTEM_CLOCK) -> str:
    """Return a credential of this process' identity for the call.

    Raises `MissingSetting` without a signing key and `NotPermitted` without an identity. If the
    settings name a key ring, a call that it would refuse is refused here (`CredentialRefused`). If
    the identity's role is higher than the key's, the credential has the key's role.
    """
    if settings.signing_key is None:
        raise MissingSetting(
            "TASKYARD_SIGNING_KEY",
            "the private key that signs operators' messages",
            "Create one with: taskyard keys create",
        )
    key = read_signing_key(settings.signing_key.expanduser())
    life = timedelta(seconds=settings.credential_ttl_s)
    identity = identity_here(settings)
    if settings.public_keys is None:
        return sign(key, identity, call, now=clock.now(), life=life)
    bound = read_ring(settings.public_keys.expanduser()).get(key.key_id)
    if bound is not None and not bound.role.includes(identity.role):
        identity = replace(identity, role=bound.role)
    text = sign(key, identity, call, now=clock.now(), life=life)
    Verifier(settings, clock).verify(text, call)
    return text


def identity_here(settings: Settings) -> Identity:
    """Return the identity of this process; Postgres is needed only to verify a token."""
    if settings.token is None:
        return local_identity(settings)
    with database.opened(settings.need_database_url()) as engine:
        return identify(engine, settings)
