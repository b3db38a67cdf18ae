"""Pause and kill switch without Postgres: by a form that was signed before, or by local trust.

The state is set in Redis first, and the event in the lifecycle stream is one step with it. The
mirror verifies the form again, and brings row and audit rows to Postgres when that answers. What is
refused here leaves no audit row, since there is no place for one.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from taskyard.access import Identity
from taskyard.access.credential import Call, call_of, sign
from taskyard.access.credential_faults import SIGN_AGAIN, Fault, refusal
from taskyard.access.key_files import read_ring, read_signing_key
from taskyard.access.verify_credential import LONGEST_CREDENTIAL, Verifier
from taskyard.clock import SYSTEM_CLOCK, Clock, to_us
from taskyard.control.authenticate_operator import local_identity
from taskyard.control.carry_out_signed_message import request_id_of
from taskyard.control.operator_reasons import check_reason
from taskyard.control.switch_request import (
    LONGEST_SWITCH,
    SwitchRequest,
    already_off,
    permit,
    time_text,
    turned_by,
)
from taskyard.errors import CredentialRefused, InvalidPayload, InvalidSettings, MissingSetting
from taskyard.records.job_keys import Keys
from taskyard.records.verb_events import VERB_FIELD
from taskyard.settings import Settings
from taskyard.switches import Form, Kind, Mode, RedisSwitches, SwitchState

__all__ = [
    "LONGEST_FORM",
    "SwitchForm",
    "call_of_form",
    "sign_form",
    "turn_by_form",
    "turn_by_trust",
]

LONGEST_FORM: Final = timedelta(days=30)
"""So long before its use a form may be signed."""
_FORM: Final = "taskyard switch"
_ANOTHER: Final = "Sign another form: repeat the command with --sign"


class SwitchForm(BaseModel):
    """A signed form as a file: whoever reads it sees which switch it turns, how, and why.

    It is valid for one switch of one namespace, once, until its credential ends.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: str = Field(default=_FORM, pattern=f"^{_FORM}$")
    namespace: str
    switch: str = Field(pattern=f"^({'|'.join(Kind)}) .{{1,300}}$")
    mode: Mode
    lasts_s: Annotated[int, Field(gt=0, le=int(LONGEST_SWITCH.total_seconds()))] | None = None
    reason: str = Field(max_length=2000)
    credential: str = Field(max_length=LONGEST_CREDENTIAL, repr=False)

    @classmethod
    def read(cls, text: str) -> SwitchForm:
        """Return the form in a text; raises `InvalidPayload`, which quotes no credential."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in fault["loc"]) or "the text"
            raise InvalidPayload(
                f"expected the form that `taskyard kill on --sign` prints, but {place}: "
                f"{fault['msg']}. Sign another"
            ) from None

    @property
    def request(self) -> SwitchRequest:
        """What the form is for."""
        kind, _, on = self.switch.partition(" ")
        lasts = None if self.lasts_s is None else timedelta(seconds=self.lasts_s)
        return SwitchRequest(Kind(kind), on, self.mode, lasts=lasts)


def call_of_form(audience: str, request: SwitchRequest, reason: str) -> Call:
    """Return the call that a form signs: this switch, this mode, this duration and this reason."""
    field = str(request.field())
    arguments = {
        "switch": field,
        "mode": request.mode.value,
        "lasts_s": _lasts_s(request),
        "reason": reason,
    }
    return call_of(audience, request.action, arguments, [field])


def _lasts_s(request: SwitchRequest) -> int | None:
    return None if request.lasts is None else int(request.lasts.total_seconds())


def sign_form(
    settings: Settings,
    request: SwitchRequest,
    reason: str | None,
    *,
    life: timedelta,
    subject: str | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> SwitchForm:
    """Return a form, signed with the key in `signing_key`; needs the key ring and no server.

    `subject` is one for whom the key may sign; by default the only one. Raises `MissingSetting`,
    `InvalidSettings`, `InvalidSwitch`, `InvalidReason`, `NotPermitted`, and `CredentialRefused` for
    a form that would be refused.
    """
    if request.until is not None or not timedelta(0) < life <= LONGEST_FORM:
        raise InvalidPayload(
            f"a form takes a duration, which begins when it is used, and is valid for at most "
            f"{LONGEST_FORM.days} days; got the end {request.until} and {life}"
        )
    request.until_us(to_us(clock.now()))
    checked = check_reason(reason)
    call = call_of_form(settings.namespace, request, checked)
    key_file, ring_file = settings.signing_key, settings.public_keys
    if key_file is None:
        raise MissingSetting(
            "TASKYARD_SIGNING_KEY",
            "the private key that signs a form",
            "Create one with: taskyard keys create",
        )
    if ring_file is None:
        raise MissingSetting(
            "TASKYARD_PUBLIC_KEYS",
            "the key ring that says for whom the key signs",
            "Copy the one that workers have",
        )
    key = read_signing_key(key_file.expanduser())
    bound = read_ring(ring_file.expanduser()).get(key.key_id)
    if bound is None:
        raise refusal(Fault.UNKNOWN_KEY)
    names = sorted(name for name in bound.subjects if "*" not in name)
    if subject is None and len(names) != 1:
        raise InvalidSettings(
            f"the key {key.key_id} signs for {', '.join(sorted(bound.subjects))}. Say for whom "
            "with --as"
        )
    identity = Identity(
        subject or names[0],
        via=f"key:{key.key_id}",
        role=bound.role,
        queues=bound.queues,
        domains=bound.domains,
        granted=bound.granted,
    )
    permit(identity, request.action, request.field())
    text = sign(key, identity, call, now=clock.now(), life=life)
    Verifier(settings, clock).verify(text, call, LONGEST_FORM)
    return SwitchForm(
        namespace=settings.namespace,
        switch=str(request.field()),
        mode=request.mode,
        lasts_s=_lasts_s(request),
        reason=checked,
        credential=text,
    )


def turn_by_form(
    settings: Settings, switches: RedisSwitches, form: SwitchForm, clock: Clock = SYSTEM_CLOCK
) -> SwitchState:
    """Turn the switch that a form names, once; needs Redis and the key ring.

    Raises `CredentialRefused`, `NotPermitted`, `Refused`, and redis-py's errors. If it is not known
    whether Redis took the form, apply it again: it is then used, or taken now.
    """
    request = form.request
    field = request.field()
    if settings.public_keys is None:
        raise MissingSetting(
            "TASKYARD_PUBLIC_KEYS",
            "the key ring that verifies a form",
            "Copy the one that workers have",
        )
    verifier = Verifier(settings, clock)
    call = call_of_form(verifier.audience, request, form.reason)
    try:
        verified = verifier.verify(form.credential, call, LONGEST_FORM)
    except CredentialRefused as error:
        text = str(error).replace(SIGN_AGAIN, _ANOTHER)
        raise CredentialRefused(error.code, text) from None
    permit(verified.identity, request.action, field)
    left_s = verified.nonce_expires_at - clock.now().timestamp()
    used = Form(verified.nonce, max(1, int(left_s * 1000)))
    by = turned_by(verified.identity, form.reason, request_id_of(verified.nonce))
    return _turn(settings, switches, request, by, form.credential, used)


def turn_by_trust(
    settings: Settings, switches: RedisSwitches, request: SwitchRequest, reason: str | None
) -> SwitchState:
    """Turn a switch as this machine's trusted user; needs only Redis.

    No credential proves who it was, so the audit rows say `broker:unverified` and what the event
    claims. Raises `NotPermitted` without that trust, and the errors of `turn_by_form`.
    """
    identity = local_identity(settings)
    checked = check_reason(reason, settings.require_reason)
    permit(identity, request.action, request.field())
    by = turned_by(identity, checked, uuid.uuid4())
    return _turn(settings, switches, request, by, "", None)


def _turn(
    settings: Settings,
    switches: RedisSwitches,
    request: SwitchRequest,
    by: Mapping[str, str],
    credential: str,
    form: Form | None,
) -> SwitchState:
    event = {
        VERB_FIELD.decode(): request.action.value,
        "lasts_s": json.dumps(_lasts_s(request)),
        "credential": credential,
    }
    now_us = switches.read().now_us
    end_us = request.until_us(now_us)
    came, state = switches.turn(
        request.field(),
        SwitchState(request.mode, version=0, since_us=0, until_us=0, **by),
        lasts_us=max(0, end_us - now_us) if end_us else 0,
        stream=Keys(settings.namespace).lifecycle,
        event=event,
        form=form,
    )
    if came == "used":
        at = "" if state is None else f" at {time_text(state.version)}"
        raise CredentialRefused(
            Fault.NONCE_USED,
            f"the form was used{at}, and turns its switch once. To see what is on: taskyard "
            f"switches list. {_ANOTHER}",
        )
    if came == "off" or state is None:
        raise already_off(request, state)
    return state
