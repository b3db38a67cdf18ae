"""Keys, key rings and signed messages for tests."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from celery import Celery
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from taskyard.access import Identity, Role
from taskyard.access.credential import sign
from taskyard.access.key_files import SigningKey
from taskyard.access.key_ring import KeyRing, PublicKey
from taskyard.access.operator_task_call import call_of_task
from taskyard.access.operator_task_table import REPLAY_TASK
from taskyard.settings import Settings
from taskyard.wire.credential_argument import CREDENTIAL

__all__ = ["WHY", "Keeper", "send_replay"]

WHY = "Infrastructure recovered after 2-hour outage"


@dataclass
class Keeper:
    """A private key, of one subject unless more are named, and the ring that vouches for it."""

    folder: Path
    subject: str = "anna@example.com"
    role: Role = Role.OPERATOR
    more_subjects: tuple[str, ...] = ()
    private: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ring.write_text(KeyRing({self.key.key_id: self.public}).render())
        self.pem.touch(mode=0o600)
        pem = self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.pem.write_bytes(pem)

    @property
    def ring(self) -> Path:
        return self.folder / "ring.toml"

    @property
    def pem(self) -> Path:
        return self.folder / "key.pem"

    @property
    def key(self) -> SigningKey:
        return SigningKey(self.private)

    @property
    def public(self) -> PublicKey:
        text = base64.urlsafe_b64encode(self.key.public_key).decode().rstrip("=")
        facts = {
            "public_key": text,
            "subjects": [self.subject, *self.more_subjects],
            "role": self.role,
        }
        return PublicKey.model_validate(facts)

    @property
    def identity(self) -> Identity:
        return Identity(self.subject, via="token:1", role=self.role)

    def signed(
        self,
        settings: Settings,
        arguments: Mapping[str, Any],
        *,
        task: str = REPLAY_TASK,
        identity: Identity | None = None,
        ago: timedelta = timedelta(0),
    ) -> dict[str, Any]:
        """The arguments with a credential for them."""
        text = sign(
            self.key,
            identity or self.identity,
            call_of_task(settings.namespace, task, arguments),
            now=datetime.now(UTC) - ago,
            life=timedelta(minutes=10),
        )
        return {**arguments, CREDENTIAL: text}


def send_replay(
    app: Celery, settings: Settings, kwargs: Mapping[str, Any], message_id: str | None = None
) -> str:
    """Publish a message of the operator task as a plain client does; its job's id."""
    job_id = message_id or str(uuid.uuid4())
    app.send_task(
        REPLAY_TASK, kwargs=dict(kwargs), task_id=job_id, queue=settings.broker_name("ops")
    )
    return job_id
