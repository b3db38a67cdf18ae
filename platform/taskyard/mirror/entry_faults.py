"""Why a signed entry of the lifecycle stream is no proof, though its signature is valid."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from taskyard.access.verify_credential import CLOCKS_MAY_DIFFER, Verified

__all__ = ["fault_of_entry"]

_WRONG_TIME: Final = "wrong_time"
_UNKNOWN_WORKER: Final = "unknown_worker"


def fault_of_entry(
    at: datetime, verified: Verified, appended: datetime, now: datetime, *, known: bool
) -> str | None:
    """Return why a signed entry is no proof of a verb; raises `CredentialRefused`.

    The client that appends an entry chooses its fields, and may have seen the credential long
    ago. Redis chooses the entry's time, so the credential must have been valid then. A key that is
    retired by now may be a stolen one, and vouches for nothing. `known`: a worker of this name has
    announced itself.
    """
    if abs(at - appended) > CLOCKS_MAY_DIFFER or at > now + CLOCKS_MAY_DIFFER:
        return _WRONG_TIME
    verified.check_time(at)
    verified.check_key(now)
    return None if known else _UNKNOWN_WORKER
