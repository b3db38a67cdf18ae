"""Keys: created and retired in the key ring's file; each action is an audited verb.

The file is written between the rows `requested` and `applied`, so the log shows a crash in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from sqlalchemy import Engine

from taskyard import audit
from taskyard.access import Action, Identity
from taskyard.access.key_files import read_ring
from taskyard.access.key_ring import KeyRing, PublicKey, text_of
from taskyard.audit import Outcome
from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.control.change_key_ring import change_ring, write_private
from taskyard.control.operator_reasons import check_reason
from taskyard.control.operator_verb import VerbCall, audited
from taskyard.control.rights import Rights, check_grantable, check_no_secret
from taskyard.errors import InvalidRights, NotFound, Refused
from taskyard.wire.redaction import mask_tokens

__all__ = ["DEFAULT_OVERLAP", "LONGEST_OVERLAP", "Binding", "create", "register", "retire"]

# As long as a credential may be valid that was signed just before.
DEFAULT_OVERLAP: Final = timedelta(hours=1)
LONGEST_OVERLAP: Final = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class Binding:
    """The limits of a key: its subjects, its highest role, and the time at which it ends."""

    subjects: frozenset[str]
    rights: Rights
    not_after: datetime | None = None

    def key(self, public_key: bytes) -> PublicKey:
        """Return the key ring's entry; raises `InvalidRights` for an invalid name."""
        for subject in self.subjects:
            check_no_secret("a key's subject", subject)
        facts = {
            **self.rights.columns(),
            "public_key": text_of(public_key),
            "subjects": self.subjects,
            "not_after": self.not_after,
        }
        try:
            return PublicKey.model_validate(facts)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            said = fault["msg"].removeprefix("Value error, ")
            raise InvalidRights(f"{fault['loc'][0]}: {said}") from error


def create(
    engine: Engine,
    ring: Path,
    private_key: Path,
    binding: Binding,
    *,
    identity: Identity,
    reason: str | None,
    on_behalf_of: str | None = None,
) -> PublicKey:
    """Create a key pair: the private key in a new file, the public one in the ring.

    Raises `NotPermitted`, `InvalidRights`, `InvalidReason` and `Refused`; each of them is audited.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - extra `signing`
        Ed25519PrivateKey,
    )
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - extra `signing`
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    pair = Ed25519PrivateKey.generate()
    pem = pair.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    call = VerbCall(Action.CREATE_KEY, identity, reason, on_behalf_of)
    with audited(engine, call):
        key = _checked(call, binding, pair.public_key().public_bytes_raw())
        _request(engine, call, key)
        write_private(private_key, pem)
        change_ring(ring, lambda found: found.having(key))
        _answer(engine, call, key)
    return key


def register(
    engine: Engine,
    ring: Path,
    public_key: bytes,
    binding: Binding,
    *,
    identity: Identity,
    reason: str | None,
    on_behalf_of: str | None = None,
) -> PublicKey:
    """Add a public key to the ring; its private key was created elsewhere.

    Raises the same errors as `create`.
    """
    call = VerbCall(Action.CREATE_KEY, identity, reason, on_behalf_of)
    with audited(engine, call):
        key = _checked(call, binding, public_key)
        _request(engine, call, key)
        change_ring(ring, lambda found: _with_new(found, key))
        _answer(engine, call, key)
    return key


def retire(
    engine: Engine,
    ring: Path,
    key_id: str,
    *,
    identity: Identity,
    reason: str | None,
    overlap: timedelta = DEFAULT_OVERLAP,
    on_behalf_of: str | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> PublicKey:
    """End a key after `overlap`, so that messages signed before are still accepted.

    The key stays in the ring, so that a refusal can name the cause: the key is retired. Raises
    `NotPermitted`, `NotFound` for a key that is not in the ring, `Refused`; each of them is
    audited.
    """
    call = VerbCall(Action.RETIRE_KEY, identity, reason, on_behalf_of)
    with audited(engine, call):
        call.permit()
        call.reason = check_reason(reason)
        if not timedelta() <= overlap <= LONGEST_OVERLAP:
            raise InvalidRights(
                f"expected an overlap from 0 to {LONGEST_OVERLAP.days} days, got {overlap}"
            )
        ends = clock.now() + overlap
        key = _ended(read_ring(ring.expanduser()), key_id, ends)
        _request(engine, call, key)
        change_ring(ring, lambda found: found.having(_ended(found, key_id, ends)))
        _answer(engine, call, key)
    return key


def _checked(call: VerbCall, binding: Binding, public_key: bytes) -> PublicKey:
    call.permit()
    call.reason = check_reason(call.reason)
    check_grantable(call.identity, binding.rights)
    return binding.key(public_key)


def _with_new(ring: KeyRing, key: PublicKey) -> KeyRing:
    if key.key_id in ring:
        raise Refused(f"the key ring has the key {key.key_id} already. See: taskyard keys list")
    return ring.having(key)


def _ended(ring: KeyRing, key_id: str, ends: datetime) -> PublicKey:
    key = ring.get(key_id)
    if key is None:
        raise NotFound(
            f"the key ring has no key {mask_tokens(key_id)[:40]!r}. See: taskyard keys list"
        )
    if key.not_after is not None and key.not_after <= ends:
        raise Refused(f"the key {key_id} already ends at {key.not_after:%Y-%m-%d %H:%M:%S} UTC")
    return key.model_copy(update={"not_after": ends})


def _request(engine: Engine, call: VerbCall, key: PublicKey) -> None:
    with engine.begin() as connection:
        call.write(connection, Outcome.REQUESTED, _detail(key))


def _answer(engine: Engine, call: VerbCall, key: PublicKey) -> None:
    with engine.begin() as connection:
        audit.answer(connection, call.request_id, Outcome.APPLIED, _detail(key))


def _detail(key: PublicKey) -> Mapping[str, object]:
    return {
        "key": key.key_id,
        "subjects": sorted(key.subjects),
        "role": key.role.value,
        "queues": None if key.queues is None else sorted(key.queues),
        "domains": None if key.domains is None else sorted(key.domains),
        "granted": sorted(action.value for action in key.granted),
        "not_after": None if key.not_after is None else key.not_after.isoformat(),
    }
