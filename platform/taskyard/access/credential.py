"""A signed credential: one call of one verb, by one subject, for a few minutes.

Its text is `v1.<key id>.<claims>.<signature>`, both in base64url without padding. The Ed25519
signature (RFC 8032) covers everything before its dot. A person who sees a credential may
send the same call again, and no other: it is bound to verb, arguments and targets, and its nonce
to one message.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from taskyard.access.actions import Action
from taskyard.access.identity import Identity
from taskyard.access.key_files import SigningKey
from taskyard.access.operator_roles import Role
from taskyard.errors import InvalidPayload

__all__ = ["VERSION", "Call", "Claims", "arguments_hash", "call_of", "encode", "sign"]

VERSION: Final = "v1"


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
        raise InvalidPayload(
            f"the arguments of a signed call must be JSON: {error}. Pass objects with text keys, "
            "lists, texts, finite numbers, booleans and null"
        ) from error
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
    head = f"{VERSION}.{key.key_id}.{encode(claims.model_dump_json().encode())}"
    return f"{head}.{encode(key.sign(head.encode()))}"


def encode(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
