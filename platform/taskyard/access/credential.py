"""A signed credential: one call of one verb, by one subject, for a few minutes.

Its text is `v1.<key id>.<claims>.<signature>`, both in base64url without padding. The Ed25519
signature (RFC 8032) covers everything before its dot. Whoever sees a credential may send it again,
but the same call alone: it is bound to verb, arguments and targets, and its nonce to one message.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from taskyard.access.actions import Action
from taskyard.access.identity import Identity
from taskyard.access.key_files import SigningKey
from taskyard.access.key_ring import KeyRing, PublicKey
from taskyard.access.roles import Role
from taskyard.errors import CredentialRefused, InvalidPayload

__all__ = [
    "CLOCKS_MAY_DIFFER",
    "LONGEST_LIFE",
    "Call",
    "Claims",
    "Fault",
    "Verified",
    "arguments_hash",
    "authenticate",
    "call_of",
    "refusal",
    "sign",
    "verify",
]

VERSION: Final = "v1"
LONGEST_LIFE: Final = timedelta(hours=1)
CLOCKS_MAY_DIFFER: Final = timedelta(minutes=5)
# Thousands of targets need a plan, which is signed by its hash.
_LONGEST: Final = 65_536
_PARTS: Final = 4
_SIGNATURE_BYTES: Final = 64


class Fault(StrEnum):
    """The reason why a credential is refused."""

    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown_key"
    RETIRED_KEY = "retired_key"
    BAD_SIGNATURE = "bad_signature"
    WRONG_AUDIENCE = "wrong_audience"
    WRONG_VERB = "wrong_verb"
    WRONG_ARGUMENTS = "wrong_arguments"
    WRONG_TARGET = "wrong_target"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    TOO_LONG_LIVED = "too_long_lived"
    SUBJECT_NOT_OF_KEY = "subject_not_of_key"
    ROLE_ABOVE_KEY = "role_above_key"
    NONCE_USED = "nonce_used"
    UNSIGNED = "unsigned"


@dataclass(frozen=True, slots=True)
class Call:
    """A requested call of a verb.

    `audience` is the namespace of the receiver, `arguments` is the hash of the arguments, and
    `targets` are sorted. A call without targets acts on everything that the verb can reach.
    `receiver` is the worker that received a broadcast: this worker accepts a credential that names
    it, or a credential without targets.
    """

    audience: str
    verb: Action
    arguments: str
    targets: tuple[str, ...] = ()
    receiver: str | None = None


def call_of(
    audience: str, verb: Action, arguments: Mapping[str, object], targets: Iterable[str] = ()
) -> Call:
    """Return the call of a verb with these arguments.

    Raises `InvalidPayload` if they are not JSON.
    """
    return Call(audience, verb, arguments_hash(arguments), tuple(sorted(set(targets))))


def arguments_hash(arguments: Mapping[str, object]) -> str:
    """Return the SHA-256 of the arguments as JSON: keys sorted, ASCII, no spaces."""
    try:
        text = json.dumps(arguments, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidPayload(f"the arguments of a signed call must be JSON: {error}") from error
    return sha256(text.encode()).hexdigest()


class Claims(BaseModel):
    """The signed fields, under their names in the credential.

    Times are whole seconds since 1970.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    aud: str
    verb: Action
    args: str = Field(pattern=r"^[0-9a-f]{64}$")
    targets: tuple[str, ...]
    sub: str = Field(min_length=1, max_length=200)
    role: Role
    queues: frozenset[str] | None
    domains: frozenset[str] | None
    granted: frozenset[Action]
    iat: int = Field(ge=0, lt=2**40)
    exp: int = Field(ge=0, lt=2**40)
    nonce: str = Field(pattern=r"^[0-9a-f]{32}$")


@dataclass(frozen=True, slots=True)
class Verified:
    """A credential that is valid for a call.

    Its identity is the caller, limited to the rights of the key.
    """

    identity: Identity
    claims: Claims
    key: PublicKey

    @property
    def nonce_expires_at(self) -> float:
        """Return until when the nonce must be kept, in seconds since 1970.

        After that time no receiver accepts the credential.
        """
        return self.claims.exp + CLOCKS_MAY_DIFFER.total_seconds()

    def check_time(self, now: datetime) -> None:
        """Raise `CredentialRefused` unless the credential and its key are valid at `now`.

        The clocks of sender and receiver may differ by 5 minutes, no more.
        """
        now_s, tolerance_s = now.timestamp(), CLOCKS_MAY_DIFFER.total_seconds()
        if self.claims.iat > now_s + tolerance_s:
            raise refusal(Fault.NOT_YET_VALID)
        if self.claims.exp < now_s - tolerance_s:
            raise refusal(Fault.EXPIRED)
        if self.key.not_before is not None and now < self.key.not_before:
            raise refusal(Fault.NOT_YET_VALID)
        if self.key.not_after is not None and now >= self.key.not_after:
            raise refusal(Fault.RETIRED_KEY)


def sign(key: SigningKey, identity: Identity, call: Call, *, now: datetime, life: timedelta) -> str:
    """Return the credential's text, valid from `now` for `life`, with a new nonce."""
    issued = int(now.timestamp())
    claims = Claims(
        aud=call.audience,
        verb=call.verb,
        args=call.arguments,
        targets=call.targets,
        sub=identity.subject,
        role=identity.role,
        queues=identity.queues,
        domains=identity.domains,
        granted=identity.granted,
        iat=issued,
        exp=issued + int(life.total_seconds()),
        nonce=secrets.token_hex(16),
    )
    head = f"{VERSION}.{key.key_id}.{_encode(claims.model_dump_json().encode())}"
    return f"{head}.{_encode(key.sign(head.encode()))}"


def verify(text: object, ring: KeyRing, call: Call, now: datetime) -> Verified:
    """Return who calls; raises `CredentialRefused` with the fault's code and a remedy."""
    verified = authenticate(text, ring, call)
    verified.check_time(now)
    return verified


def authenticate(text: object, ring: KeyRing, call: Call) -> Verified:
    """Verify everything except the time.

    `Verified.check_time` checks the time. No claim in the text is read before its signature is
    verified.
    """
    signed, key_id, body, signature = _split(text)
    key = ring.get(key_id)
    if key is None:
        raise refusal(Fault.UNKNOWN_KEY)
    _check_signature(key, signature, signed)
    claims = _claims(body)
    _check_key(key, claims)
    _check_call(claims, call)
    identity = Identity(
        claims.sub,
        via=f"key:{key_id}",
        role=claims.role,
        queues=claims.queues,
        domains=claims.domains,
        granted=claims.granted,
    )
    return Verified(key.bound(identity), claims, key)


def _split(text: object) -> tuple[bytes, str, bytes, bytes]:
    """Return the signed part of the credential, the id of the key, the claims and the signature."""
    if text is None:
        raise refusal(Fault.UNSIGNED)
    if not isinstance(text, str) or not text.isascii() or len(text) > _LONGEST:
        raise refusal(Fault.MALFORMED)
    parts = text.split(".")
    if len(parts) != _PARTS or parts[0] != VERSION:
        raise refusal(Fault.MALFORMED)
    _, key_id, body, signature = parts
    signed = text[: -len(signature) - 1].encode()
    found = _decode(signature)
    if len(found) != _SIGNATURE_BYTES:
        raise refusal(Fault.MALFORMED)
    return signed, key_id, _decode(body), found


def _check_signature(key: PublicKey, signature: bytes, signed: bytes) -> None:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - extra `signing`
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PublicKey,
    )

    try:
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature, signed)
    except InvalidSignature:
        raise refusal(Fault.BAD_SIGNATURE) from None


def _claims(body: bytes) -> Claims:
    try:
        return Claims.model_validate_json(body)
    except ValidationError:
        # The error would quote the credential.
        raise refusal(Fault.MALFORMED) from None


def _check_key(key: PublicKey, claims: Claims) -> None:
    if not key.signs_for(claims.sub):
        raise refusal(Fault.SUBJECT_NOT_OF_KEY)
    if not key.role.includes(claims.role):
        raise refusal(Fault.ROLE_ABOVE_KEY)
    if not 0 < claims.exp - claims.iat <= LONGEST_LIFE.total_seconds():
        raise refusal(Fault.TOO_LONG_LIVED)


def _check_call(claims: Claims, call: Call) -> None:
    if not _same(claims.aud, call.audience):
        raise refusal(Fault.WRONG_AUDIENCE)
    if not _same(claims.verb, call.verb):
        raise refusal(Fault.WRONG_VERB)
    if not _are_targets(claims.targets, call):
        raise refusal(Fault.WRONG_TARGET)
    if not _same(claims.args, call.arguments):
        raise refusal(Fault.WRONG_ARGUMENTS)


def _are_targets(claimed: tuple[str, ...], call: Call) -> bool:
    if call.receiver is not None:
        return not claimed or call.receiver in claimed
    return _same(json.dumps(claimed), json.dumps(call.targets))


def _same(first: str, second: str) -> bool:
    """Return whether two texts are equal, in a time that does not show where they differ."""
    return hmac.compare_digest(first.encode(), second.encode())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    """Return the bytes of base64url in its canonical form.

    Another form of the same bytes is refused.
    """
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise refusal(Fault.MALFORMED) from None
    if _encode(found) != text:
        raise refusal(Fault.MALFORMED)
    return found


def refusal(fault: Fault) -> CredentialRefused:
    """Return the error for a fault: it names the remedy and contains no part of the credential."""
    return CredentialRefused(fault, _SENTENCES[fault])


_SIGN_AGAIN: Final = "Sign the call again with: taskyard sign"
_SENTENCES: Final[Mapping[Fault, str]] = {
    Fault.MALFORMED: "the credential is not of the form v1.<key id>.<claims>.<signature>. "
    + _SIGN_AGAIN,
    Fault.UNKNOWN_KEY: "the credential is signed with a key that the receiver does not have. Add "
    "its public key to the receiver's key ring, the file in TASKYARD_PUBLIC_KEYS there",
    Fault.RETIRED_KEY: "the credential's key is retired. Create a new key with: taskyard keys "
    "create",
    Fault.BAD_SIGNATURE: "the credential's signature does not match its claims. " + _SIGN_AGAIN,
    Fault.WRONG_AUDIENCE: "the credential is for another namespace. Sign it with the "
    "TASKYARD_NAMESPACE of the receiver",
    Fault.WRONG_VERB: "the credential is for another verb. " + _SIGN_AGAIN,
    Fault.WRONG_ARGUMENTS: "the credential is for other arguments. " + _SIGN_AGAIN,
    Fault.WRONG_TARGET: "the credential is for another target. " + _SIGN_AGAIN,
    Fault.EXPIRED: "the credential has expired. " + _SIGN_AGAIN,
    Fault.NOT_YET_VALID: "the credential or its key is not valid yet. Set the clocks of sender and "
    "receiver: they may differ by 5 minutes",
    Fault.TOO_LONG_LIVED: "the credential must end after its start and be valid for an hour at "
    "most. "
    "Set TASKYARD_CREDENTIAL_TTL_S to at most 3600 and sign it again",
    Fault.SUBJECT_NOT_OF_KEY: "the credential's key may not sign for its subject. Add the subject "
    "to the key in the key ring, or sign with the subject's own key",
    Fault.ROLE_ABOVE_KEY: "the credential claims a role above its key's. Sign as an identity of "
    "the key's role, or raise it in the key ring",
    Fault.UNSIGNED: "the message has no credential, so its sender is unknown. "
    "Sign it with: taskyard sign",
    Fault.NONCE_USED: "the credential was used for another message. " + _SIGN_AGAIN,
}
