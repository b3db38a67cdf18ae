"""A server's port and passwords.

Created once and stored in the home, so that URLs do not change.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

__all__ = ["LOOPBACK", "Address"]

LOOPBACK = "127.0.0.1"
ANY_FREE_PORT = 0


@dataclass(frozen=True)
class Address:
    """A loopback port with the passwords of the application and of the administrator."""

    port: int
    password: str
    admin_password: str

    @classmethod
    def load(cls, file: Path) -> Self | None:
        """Return the port and passwords of an earlier start, None before the first start."""
        return cls(**json.loads(file.read_text())) if file.exists() else None

    @classmethod
    def new(cls) -> Self:
        """Return any free port and new passwords, in hexadecimal to be safe in URLs and SQL."""
        return cls(ANY_FREE_PORT, secrets.token_hex(16), secrets.token_hex(16))

    def on_free_port(self) -> Self:
        """Return the same port if it is free, else another; the server's own bind decides."""
        return replace(self, port=_free_port(self.port))

    def store(self, file: Path) -> None:
        """Write the file in one step, readable only by its owner."""
        fresh = file.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            json.dump(asdict(self), out)
        fresh.replace(file)


def _free_port(wanted: int) -> int:
    for port in (wanted, ANY_FREE_PORT):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # A port in TIME_WAIT is free for a server, which sets this option as well.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                if port == ANY_FREE_PORT:
                    raise
                continue
            return int(probe.getsockname()[1])
    raise AssertionError("binding to a free port returns or raises")
