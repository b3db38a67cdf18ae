"""The key ring: public keys, for whom each may sign, and with which highest role."""

from __future__ import annotations

import base64
import binascii
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Final, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from taskyard.access.actions import Action
from taskyard.access.identity import Identity
from taskyard.access.operator_roles import Role
from taskyard.errors import InvalidSettings
from taskyard.wire.control_characters import STEERING

__all__ = ["KeyRing", "KeyState", "PublicKey", "bytes_of_text", "key_id_of", "state_of", "text_of"]

_PUBLIC_BYTES: Final = 32
_EXPECTED: Final = "expected the 32 bytes of an Ed25519 public key in base64url"
_SUBJECT: Final = re.compile(r"[^\s*]{1,200}")
# Names of people whom a sign-in verifies: an address, so that none looks like `local:user@host`.
_PEOPLE: Final = re.compile(r"\*(@[A-Za-z0-9.-]{1,190})")
_PERSON: Final = re.compile(r"[A-Za-z0-9._%+-]+")


def key_id_of(public_key: bytes) -> str:
    """Return the id of an Ed25519 public key of 32 bytes.

    The first 16 hex digits of its SHA-256.
    """
    return sha256(public_key).hexdigest()[:16]


def text_of(public_key: bytes) -> str:
    """Return a public key as text for the key ring: base64url without padding."""
    return base64.urlsafe_b64encode(public_key).decode().rstrip("=")


def bytes_of_text(value: object) -> bytes:
    """Parse a public key's text; raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"{_EXPECTED}, got {type(value).__name__}")
    try:
        found = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != _PUBLIC_BYTES:
        raise ValueError(f"{_EXPECTED}, got {len(value)} characters of another form")
    return found


class PublicKey(BaseModel):
    """One public key and the limits of what it may sign.

    `subjects` are exact names, or `*@example.com` for an issuer that verifies people. `role`,
    `granted`, `queues` and `domains` are the most that the key can sign for; None means no limit.
    The key is valid from `not_before` until `not_after`; None means no limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    public_key: Annotated[bytes, BeforeValidator(bytes_of_text)]
    subjects: frozenset[str] = Field(min_length=1)
    role: Role
    queues: frozenset[str] | None = None
    domains: frozenset[str] | None = None
    granted: frozenset[Action] = frozenset()
    not_before: AwareDatetime | None = None
    not_after: AwareDatetime | None = None

    @field_validator("subjects")
    @classmethod
    def _are_subjects(cls, subjects: frozenset[str]) -> frozenset[str]:
        for subject in subjects:
            known = _SUBJECT.fullmatch(subject) or _PEOPLE.fullmatch(subject)
            if not known or STEERING.search(subject):
                raise ValueError(
                    "expected a name without spaces, or *@ and a domain such as *@example.com, "
                    f"got {subject!r:.80}"
                )
        return subjects

    @property
    def key_id(self) -> str:
        """The id of the key, as a credential names it."""
        return key_id_of(self.public_key)

    def signs_for(self, subject: str) -> bool:
        """Return whether a credential of this subject may be signed with this key."""
        if subject in self.subjects and "*" not in subject:
            return True
        person, at, domain = subject.partition("@")
        return bool(at and _PERSON.fullmatch(person)) and f"*@{domain}" in self.subjects

    def bound(self, identity: Identity) -> Identity:
        """Return the identity within the bounds of this key; its role is checked elsewhere."""
        return Identity(
            identity.subject,
            via=identity.via,
            role=identity.role,
            queues=_both(self.queues, identity.queues),
            domains=_both(self.domains, identity.domains),
            granted=self.granted & identity.granted,
        )


def _both(first: frozenset[str] | None, second: frozenset[str] | None) -> frozenset[str] | None:
    if first is None or second is None:
        return second if first is None else first
    return first & second


class KeyState(StrEnum):
    """Whether a signature that is made with a key now would be accepted."""

    ACTIVE = "active"
    RETIRED = "retired"
    NOT_YET_VALID = "not valid yet"


def state_of(key: PublicKey, now: datetime) -> KeyState:
    """Return whether the key is valid at `now`, not yet, or no longer."""
    if key.not_after is not None and key.not_after <= now:
        return KeyState.RETIRED
    if key.not_before is not None and key.not_before > now:
        return KeyState.NOT_YET_VALID
    return KeyState.ACTIVE


class KeyRing(Mapping[str, PublicKey]):
    """Public keys by id, from a TOML file with `[keys.<id>]` tables."""

    def __init__(self, keys: Mapping[str, PublicKey]) -> None:
        self._keys = dict(keys)

    @classmethod
    def parse(cls, text: str, source: str) -> Self:
        """Parse a key ring's text; `source` names its file in errors.

        Raises `InvalidSettings`, whose text names the file, the key and the wrong field.
        """
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InvalidSettings(f"the key ring {source} is not valid TOML: {error}") from error
        tables = document.pop("keys", {})
        if document or not isinstance(tables, dict):
            raise InvalidSettings(
                f"the key ring {source} must contain only tables [keys.<id>], got: "
                f"{', '.join(sorted(document)) or 'keys of another type'}"
            )
        return cls({name: _entry(name, raw, source) for name, raw in tables.items()})

    def render(self) -> str:
        """Return the text that `parse` reads."""
        return _HEAD + "".join(_table(name, key) for name, key in self._keys.items())

    def having(self, key: PublicKey) -> KeyRing:
        """Return a ring that also contains `key`, which replaces one with its id."""
        return KeyRing({**self._keys, key.key_id: key})

    def __getitem__(self, key_id: str) -> PublicKey:
        """The key with this id; KeyError if the ring has none."""
        return self._keys[key_id]

    def __iter__(self) -> Iterator[str]:
        """The ids, in the order of the file."""
        return iter(self._keys)

    def __len__(self) -> int:
        """How many keys there are."""
        return len(self._keys)


_HEAD: Final = (
    "# Public keys of operators. `taskyard keys` rewrites this file; comments are lost.\n"
)


def _entry(name: str, raw: object, source: str) -> PublicKey:
    try:
        key = PublicKey.model_validate(raw)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in fault["loc"]) or "the table"
        said = fault["msg"].removeprefix("Value error, ")
        raise InvalidSettings(f"the key ring {source}, key {name}: {field}: {said}") from error
    if key.key_id != name:
        raise InvalidSettings(
            f"the key ring {source}: the table [keys.{name}] holds "
            f"the key {key.key_id}. Rename the table to [keys.{key.key_id}]"
        )
    return key


def _table(name: str, key: PublicKey) -> str:
    # JSON's texts and lists of texts are valid TOML too.
    lines = [
        f"[keys.{name}]",
        f'public_key = "{text_of(key.public_key)}"',
        f"subjects = {json.dumps(sorted(key.subjects))}",
        f'role = "{key.role}"',
    ]
    for field in ("queues", "domains"):
        bound = getattr(key, field)
        if bound is not None:
            lines.append(f"{field} = {json.dumps(sorted(bound))}")
    if key.granted:
        lines.append(f"granted = {json.dumps(sorted(key.granted))}")
    for field in ("not_before", "not_after"):
        moment: datetime | None = getattr(key, field)
        if moment is not None:
            lines.append(f"{field} = {moment.astimezone(UTC).isoformat()}")
    return "\n" + "\n".join(lines) + "\n"
