"""Why a credential is refused: each fault, and the error with its remedy."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from taskyard.errors import CredentialRefused

__all__ = ["SIGN_AGAIN", "Fault", "refusal"]


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


def refusal(fault: Fault) -> CredentialRefused:
    """Return the error for a fault: it names the remedy and contains no part of the credential."""
    return CredentialRefused(fault, _SENTENCES[fault])


SIGN_AGAIN: Final = "Sign the call again with: taskyard sign"
_SENTENCES: Final[Mapping[Fault, str]] = {
    Fault.MALFORMED: "the credential is not of the form v1.<key id>.<claims>.<signature>. "
    + SIGN_AGAIN,
    Fault.UNKNOWN_KEY: "the credential is signed with a key that the receiver does not have. Add "
    "its public key to the receiver's key ring, the file in TASKYARD_PUBLIC_KEYS there",
    Fault.RETIRED_KEY: "the credential's key is retired. Create a new key with: taskyard keys "
    "create",
    Fault.BAD_SIGNATURE: "the credential's signature does not match its claims. " + SIGN_AGAIN,
    Fault.WRONG_AUDIENCE: "the credential is for another namespace. Sign it with the "
    "TASKYARD_NAMESPACE of the receiver",
    Fault.WRONG_VERB: "the credential is for another verb. " + SIGN_AGAIN,
    Fault.WRONG_ARGUMENTS: "the credential is for other arguments. " + SIGN_AGAIN,
    Fault.WRONG_TARGET: "the credential is for another target. " + SIGN_AGAIN,
    Fault.EXPIRED: "the credential has expired. " + SIGN_AGAIN,
    Fault.NOT_YET_VALID: "the credential or its key is not valid yet. Correct the clocks of sender "
    "and receiver, which may differ by at most 5 minutes",
    Fault.TOO_LONG_LIVED: "the credential must end after its start and be valid for an hour at "
    "most. Set TASKYARD_CREDENTIAL_TTL_S to at most 3600 and sign it again",
    Fault.SUBJECT_NOT_OF_KEY: "the credential's key may not sign for its subject. Add the subject "
    "to the key in the key ring, or sign with the subject's own key",
    Fault.ROLE_ABOVE_KEY: "the credential claims a role above its key's. Sign as an identity of "
    "the key's role, or raise it in the key ring",
    Fault.UNSIGNED: "the message has no credential, so its sender is unknown. "
    "Sign it with: taskyard sign",
    Fault.NONCE_USED: "the credential was used for another message. " + SIGN_AGAIN,
}
