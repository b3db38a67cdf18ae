"""Find the key ring that TASKYARD_PUBLIC_KEYS names, and say which of its keys can sign now."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path

from taskyard.access.key_ring import PublicKey
from taskyard.errors import MissingSetting
from taskyard.settings import Settings

__all__ = ["KeyState", "need_ring", "state_of"]


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


class KeyState(StrEnum):
    """Whether a key signs."""

    ACTIVE = "active"
    RETIRED = "retired"
    NOT_YET_VALID = "not valid yet"


def state_of(key: PublicKey, now: datetime) -> KeyState:
    """Return whether the key signs at `now`."""
    if key.not_after is not None and key.not_after <= now:
        return KeyState.RETIRED
    if key.not_before is not None and key.not_before > now:
        return KeyState.NOT_YET_VALID
    return KeyState.ACTIVE
