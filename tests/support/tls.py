"""A certification authority that no machine knows, and what it signed for a server and a client."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from servers import require_or_skip
from taskyard.ops.embedded.port_and_passwords import LOOPBACK

__all__ = ["Certificates"]


@dataclass(frozen=True)
class Certificates:
    """Files in `folder`: ca.pem, server.pem, server.key, client.pem, client.key."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Certificates:
        made = cls(folder)
        made._openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=lab"),
            *("-keyout", "ca.key", "-out", "ca.pem"),
        )
        (folder / "names").write_text(f"subjectAltName=DNS:localhost,IP:{LOOPBACK}")
        for name in ("server", "client"):
            made._openssl(
                *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
                *("-keyout", f"{name}.key", "-out", f"{name}.csr"),
            )
            made._openssl(
                *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
                *("-CAcreateserial", "-days", "2", "-extfile", "names", "-out", f"{name}.pem"),
            )
        return made

    def _openssl(self, *words: str) -> None:
        argv = [str(require_or_skip("openssl")), *words]
        subprocess.run(argv, cwd=self.folder, check=True, capture_output=True)

    def file(self, name: str) -> str:
        return str(self.folder / name)

    @property
    def query(self) -> str:
        """What a URL says to verify the server and to be known by it."""
        return (
            f"ssl_cert_reqs=required&ssl_ca_certs={self.file('ca.pem')}"
            f"&ssl_certfile={self.file('client.pem')}&ssl_keyfile={self.file('client.key')}"
        )
