"""Verify credentials with the key ring in the settings of a process.

A process without a key ring refuses every credential.
"""

from __future__ import annotations

from taskyard.access.credential import Call, Fault, Verified, authenticate, refusal
from taskyard.access.key_files import RingFile
from taskyard.access.key_ring import KeyRing
from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.errors import CredentialRefused, InvalidSettings
from taskyard.settings import Settings
from taskyard.wire.redacted_logs import logger

__all__ = ["Verifier"]

log = logger(__name__)


class Verifier:
    """Verifies credentials with the key ring in the file `public_keys`.

    Without such a file the key ring is empty, so every credential is refused.
    """

    def __init__(self, settings: Settings, clock: Clock = SYSTEM_CLOCK) -> None:
        self.audience = settings.namespace
        self.clock = clock
        path = settings.public_keys
        self._file = None if path is None else RingFile(path.expanduser(), clock)

    def verify(self, text: object, call: Call) -> Verified:
        """Return the verified caller; raises `CredentialRefused`."""
        verified = self.authenticate(text, call)
        verified.check_time(self.clock.now())
        return verified

    def authenticate(self, text: object, call: Call) -> Verified:
        """Verify everything except the time, for a call that may have been accepted already."""
        try:
            return authenticate(text, self._ring(), call)
        except ModuleNotFoundError as error:
            raise CredentialRefused(
                Fault.UNKNOWN_KEY,
                f"the receiver cannot verify credentials, since {error.name} is not installed "
                "there. Run: pip install 'taskyard[signing]'",
            ) from None

    def _ring(self) -> KeyRing:
        if self._file is None:
            return KeyRing({})
        try:
            return self._file.ring()
        except InvalidSettings as error:
            # A sender of a credential need not learn the paths of this machine.
            log.error(
                "credentials are refused until the key ring can be read: %s",
                error,
                extra={"action": "key_ring_unreadable"},
            )
            raise refusal(Fault.UNKNOWN_KEY) from None
