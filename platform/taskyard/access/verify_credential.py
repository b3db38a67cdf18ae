"""Verify a credential: its signature, its key's bounds, the call that it is for, its time."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from pydantic import ValidationError

from taskyard.access.credential import VERSION, Call, Claims, encode
from taskyard.access.credential_faults import Fault, refusal
from taskyard.access.identity import Identity
from taskyard.access.key_files import RingFile
from taskyard.access.key_ring import KeyRing, PublicKey
from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.errors import CredentialRefused, InvalidSettings
from taskyard.settings import Settings
from taskyard.wire.redacted_logs import logger

__all__ = [
    "CLOCKS_MAY_DIFFER",
    "LONGEST_CREDENTIAL",
    "LONGEST_LIFE",
    "Verified",
    "Verifier",
    "authenticate",
    "verify",
]

log = logger(__name__)

LONGEST_LIFE: Final = timedelta(hours=1)
CLOCKS_MAY_DIFFER: Final = timedelta(minutes=5)
# Thousands of targets need a plan, which is signed by its hash.
LONGEST_CREDENTIAL: Final = 65_536
_PARTS: Final = 4
_SIGNATURE_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Verified:
    """A credential that is valid for a call.

    Its identity is the caller, limited to the rights of the key.
    """

    identity: Identity
    claims: Claims
    key: PublicKey

    @property
    def nonce(self) -> str:
        """Return the nonce as the key's own, 32 hex digits.

        A signer chooses the nonce, and may choose one that was seen in the message of another.
        """
        return sha256(f"{self.key.key_id}:{self.claims.nonce}".encode()).hexdigest()[:32]

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
        self.check_key(now)

    def check_key(self, now: datetime) -> None:
        """Raise `CredentialRefused` unless the key is valid at `now`."""
        if self.key.not_before is not None and now < self.key.not_before:
            raise refusal(Fault.NOT_YET_VALID)
        if self.key.not_after is not None and now >= self.key.not_after:
            raise refusal(Fault.RETIRED_KEY)


class Verifier:
    """Verifies credentials with the key ring in the file `public_keys`.

    Without such a file the key ring is empty, so every credential is refused.
    """

    def __init__(self, settings: Settings, clock: Clock = SYSTEM_CLOCK) -> None:
        self.audience = settings.namespace
        self.clock = clock
        path = settings.public_keys
        self._file = None if path is None else RingFile(path.expanduser(), clock)

    def verify(self, text: object, call: Call, longest: timedelta = LONGEST_LIFE) -> Verified:
        """Return the verified caller; raises `CredentialRefused`."""
        verified = self.authenticate(text, call, longest)
        verified.check_time(self.clock.now())
        return verified

    def authenticate(self, text: object, call: Call, longest: timedelta = LONGEST_LIFE) -> Verified:
        """Verify everything except the time, for a call that may have been accepted already.

        `longest` is the longest life that a credential of this kind may have.
        """
        try:
            return authenticate(text, self._ring(), call, longest)
        except ModuleNotFoundError as error:
            raise CredentialRefused(
                Fault.UNKNOWN_KEY,
                f"the receiver cannot verify credentials, since {error.name} is not installed "
                "there. Run: pip install 'taskyard[signing]'",
            ) from None

    def _ring(self) -> KeyRing:
        if self._file is None:
            return KeyRing({})
        try:
            return self._file.ring()
        except InvalidSettings as error:
            # A sender of a credential need not learn the paths of this machine.
            log.error(
                "credentials are refused until the key ring can be read: %s",
                error,
                extra={"action": "key_ring_unreadable"},
            )
            raise refusal(Fault.UNKNOWN_KEY) from None


def verify(text: object, ring: KeyRing, call: Call, now: datetime) -> Verified:
    """Return the verified caller; raises `CredentialRefused` with the fault's code and a remedy."""
    verified = authenticate(text, ring, call)
    verified.check_time(now)
    return verified


def authenticate(
    text: object, ring: KeyRing, call: Call, longest: timedelta = LONGEST_LIFE
) -> Verified:
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
    _check_key(key, claims, longest)
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
    if not isinstance(text, str) or not text.isascii() or len(text) > LONGEST_CREDENTIAL:
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


def _check_key(key: PublicKey, claims: Claims, longest: timedelta) -> None:
    if not key.signs_for(claims.sub):
        raise refusal(Fault.SUBJECT_NOT_OF_KEY)
    if not key.role.includes(claims.role):
        raise refusal(Fault.ROLE_ABOVE_KEY)
    if not 0 < claims.exp - claims.iat <= longest.total_seconds():
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


def _decode(text: str) -> bytes:
    """Return the bytes of base64url in its canonical form.

    Another form of the same bytes is refused.
    """
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise refusal(Fault.MALFORMED) from None
    if encode(found) != text:
        raise refusal(Fault.MALFORMED)
    return found
