"""The key ring of the settings, and how its keys are shown."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from taskyard.access.keys import PublicKey
from taskyard.errors import MissingSetting
from taskyard.settings import Settings

__all__ = ["need_ring", "state_of"]


def need_ring(settings: Settings) -> Path:
    """Return the key ring's file; raises `MissingSetting`."""
    if settings.public_keys is None:
        raise MissingSetting(
            "TASKYARD_PUBLIC_KEYS",
            "the key ring, a TOML file with the public keys of operators",
            "Name a file that workers can read and only admins can write. Run: "
            "export TASKYARD_PUBLIC_KEYS=/etc/taskyard/keys.toml",
        )
    return settings.public_keys.expanduser()


def state_of(key: PublicKey, now: datetime) -> str:
    """Return `active`, `retired` or `not valid yet`."""
    if key.not_after is not None and key.not_after <= now:
        return "retired"
    if key.not_before is not None and key.not_before > now:
        return "not valid yet"
    return "active"
