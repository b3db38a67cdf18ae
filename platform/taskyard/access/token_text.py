"""A token's text, `ty_<id>_<secret>`: created, parsed, and never shown by a repr or an error."""

from __future__ import annotations

import base64
import re
import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Self

from taskyard.errors import TokenRefused

__all__ = ["FORM", "TOKEN_ID", "Token"]

TOKEN_ID: Final = re.compile(r"[0-9a-f]{12}")
_ID_BYTES: Final = 6
_SECRET_BYTES: Final = 32
_TEXT: Final = re.compile(r"ty_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
FORM: Final = "ty_, 12 hexadecimal digits, _ and 43 letters, digits, - or _"


@dataclass(frozen=True, slots=True)
class Token:
    """An id, which may be shown, and a secret of 256 random bits, which may not."""

    id: str
    secret: str = field(repr=False)

    @classmethod
    def new(cls) -> Self:
        """Return a new, unique token."""
        return cls(secrets.token_hex(_ID_BYTES), _new_secret())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a token; raises `TokenRefused`, whose message contains no part of `text`."""
        stripped = text.strip()
        found = _TEXT.fullmatch(stripped)
        if found is None:
            raise TokenRefused(
                "malformed",
                f"TASKYARD_TOKEN does not hold a token. Expected {FORM}; got {len(stripped)} "
                "characters of another form. Copy the whole token, or create another: "
                "taskyard tokens create",
            )
        return cls(found[1], found[2])

    def with_new_secret(self) -> Token:
        """Return a token of the same id."""
        return Token(self.id, _new_secret())

    def digest(self) -> bytes:
        """The SHA-256 of the secret; the database stores only this hash.

        A secret of 256 random bits cannot be guessed, so a slow hash would protect nothing more.
        """
        return sha256(self.secret.encode("ascii")).digest()

    def reveal(self) -> str:
        """Return the whole token, for the one line that shows the token to its creator."""
        return f"ty_{self.id}_{self.secret}"


def _new_secret() -> str:
    """Return 32 random bytes as 43 characters of base64url."""
    return base64.urlsafe_b64encode(secrets.token_bytes(_SECRET_BYTES)).decode("ascii").rstrip("=")
