"""The dead letter's envelope: a failed job's captured message and its cause of death.

It is sent as JSON to the dead-letter exchange. The captured body is base64, so that every byte
survives, even if the body cannot be decoded.
"""

from __future__ import annotations

import base64
import re
import uuid
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator

from taskyard.wire.decompression import UNPACKED_LIMIT, CompressionFault, unpack_body
from taskyard.wire.letter_categories import Category

__all__ = [
    "ENVELOPE_LIMIT",
    "LETTER_NAMESPACE",
    "REPEATED",
    "SCHEMA",
    "AttemptNote",
    "Letter",
    "RawMessage",
    "letter_id",
    "plain_body",
]

SCHEMA: Final = 1
# The largest envelope that is decompressed; Postgres stores a larger one only in pieces.
ENVELOPE_LIMIT: Final = 256 * 1024 * 1024
# Added to the letter of a message without an id that the broker has delivered before.
REPEATED: Final = (
    "; it has no id and was delivered before, so another letter may hold the same message"
)
LETTER_NAMESPACE: Final = uuid.UUID("6b0f8a52-6e0e-5d6c-9a37-3d4f6a1f2c11")


def letter_id(job_id: str, epoch: int, generation: int) -> str:
    """Return the dead letter's id of this epoch and generation of a job; it is always the same."""
    return str(uuid.uuid5(LETTER_NAMESPACE, f"{job_id}:{epoch}:{generation}"))


class RawMessage(BaseModel):
    """An original broker message: `body` in bytes, compressed if a header says so.

    Headers and properties are packed (`taskyard.wire.lossless_json`): plain JSON without loss,
    which publishing unpacks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    body: bytes
    headers: dict[str, Any] = Field(default_factory=dict)
    properties: dict[str, Any] = Field(default_factory=dict)
    content_type: str | None = None
    content_encoding: str | None = None

    @field_serializer("body")
    def _encode(self, body: bytes) -> str:
        return base64.b64encode(body).decode("ascii")

    @field_validator("body", mode="before")
    @classmethod
    def _decode(cls, body: object) -> object:
        return base64.b64decode(body, validate=True) if isinstance(body, str) else body


def plain_body(message: RawMessage, limit: int = UNPACKED_LIMIT) -> bytes:
    """Return the message's body, decompressed if its header `compression` says so.

    Raises `CompressionFault`; its subclass `UnpacksTooLarge` means that it is over `limit` bytes.
    """
    name = message.headers.get("compression")
    if not name:
        return message.body
    if not isinstance(name, str):
        raise CompressionFault(f"the header 'compression' must be a name, got {name!r:.60}")
    return unpack_body(message.body, name, limit)


class AttemptNote(BaseModel):
    """One past attempt of a job, from the record's history; times are microseconds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    attempt: int
    worker: str
    started_us: int
    ended_us: int
    outcome: str
    code: str | None = None
    error: str | None = None


class Letter(BaseModel):
    """A dead letter: everything that is known about one death of a job.

    `version` is the job's version at the decision. `args` and `kwargs` are None if the body could
    not be decoded. `evidence` holds further facts: the number of deaths of a poison message, exit
    code, signal.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int = SCHEMA
    letter_id: str
    job_id: str
    epoch: int
    generation: int
    version: int
    job_type: str
    domain: str | None = None
    queue: str
    priority: int | None = None
    message: RawMessage
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    reply_to: str | None = None
    category: Category
    code: str
    error_class: str
    error_message: str
    traceback: str = ""
    fingerprint: str = ""
    attempts: list[AttemptNote] = Field(default_factory=list)
    first_failure_us: int
    last_failure_us: int
    replay_eligible: bool
    escalate_to: str | None = None
    worker: str | None = None
    evidence: dict[str, Any] = Field(default_factory=dict)

    def routing_key(self) -> str:
        """Return `<queue>.<type>.<category>`, in at most 200 bytes; dots in names become colons."""
        # kombu converts the topic `#` to the expression `.*?`, which no line break matches.
        name, queue = (":".join(re.split(r"[.\r\n]", text)) for text in (self.job_type, self.queue))
        name = name.encode()[:150].decode("utf-8", "ignore")
        queue = queue.encode()[:30].decode("utf-8", "ignore")
        return f"{queue}.{name}.{self.category}"

    @classmethod
    def parse(cls, body: bytes | str) -> Self:
        """Parse an envelope; raises pydantic's `ValidationError` if it is not valid."""
        return cls.model_validate_json(body)

    def encode(self) -> bytes:
        """Return the envelope as JSON."""
        return self.model_dump_json().encode()
