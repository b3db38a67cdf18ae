"""Check the files of signing: the key ring and the private key, where the settings name them.

Alone because each subject that `check` examines has one.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

from taskyard.access.key_files import read_ring, read_signing_key
from taskyard.access.key_ring import KeyState, state_of
from taskyard.clock import SYSTEM_CLOCK
from taskyard.ops.cli.checks.finding import Finding
from taskyard.settings import Settings

__all__ = ["look_at"]

_SUBJECT: Final = "keys"
# Long enough to make the next key and give it to its owner.
_SOON: Final = timedelta(days=14)


def look_at(settings: Settings) -> Iterator[Finding]:
    """Check both files; raises `InvalidSettings` for one that cannot be used."""
    if settings.public_keys is not None:
        yield from _ring(settings.public_keys.expanduser())
    if settings.signing_key is not None:
        key = read_signing_key(settings.signing_key.expanduser())
        yield Finding.ok(_SUBJECT, f"only its owner can read the signing key {key.key_id}")


def _ring(path: Path) -> Iterator[Finding]:
    ring, now = read_ring(path), SYSTEM_CLOCK.now()
    active = [key for key in ring.values() if state_of(key, now) is KeyState.ACTIVE]
    if not active:
        yield Finding.warning(
            _SUBJECT,
            f"the key ring {path} has no active key, so every signed message is refused",
            "Run: taskyard keys create",
        )
        return
    yield Finding.ok(_SUBJECT, f"the key ring {path} has {len(active)} active of {len(ring)} keys")
    for key in active:
        if key.not_after is not None and key.not_after - now < _SOON:
            yield Finding.warning(
                _SUBJECT,
                f"the key {key.key_id} of {', '.join(sorted(key.subjects))} ends at "
                f"{key.not_after:%Y-%m-%d %H:%M} UTC",
                "If its owner still needs one, run: taskyard keys create",
            )
