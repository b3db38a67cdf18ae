"""Find the key ring that TASKYARD_PUBLIC_KEYS names."""

from __future__ import annotations

from pathlib import Path

from taskyard.errors import MissingSetting
from taskyard.settings import Settings

__all__ = ["need_ring"]


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
