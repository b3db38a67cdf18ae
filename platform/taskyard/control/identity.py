"""The identity of this machine's user, where the settings trust it."""

from __future__ import annotations

import os
import pwd
import socket

from taskyard.access import Identity, Role
from taskyard.errors import NotPermitted
from taskyard.settings import Settings

__all__ = ["local_identity"]


def local_identity(settings: Settings) -> Identity:
    """Return the user of this machine as an admin, where `trust_local` says that this is enough.

    Raises `NotPermitted` with the remedy. The name is that of the process's user id: a variable
    such as USER can say anything.
    """
    if not settings.trust_local:
        raise NotPermitted(
            "there is no verified identity. On a machine whose users you trust set "
            "TASKYARD_TRUST_LOCAL=1: actions are then audited as local:<user>@<host>"
        )
    return Identity(f"local:{_user()}@{socket.gethostname()}", via="local", role=Role.ADMIN)


def _user() -> str:
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container may run under an id that has no name
        return str(uid)
