"""Who acts: a subject that was verified, and how. Never an argument that a caller may fill."""

from __future__ import annotations

import os
import pwd
import socket
from dataclasses import dataclass

from taskyard.audit import Action
from taskyard.errors import NotPermitted
from taskyard.settings import Settings

__all__ = ["Identity", "local_identity"]


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified subject, the credential it came by (`via`), and the actions it may take."""

    subject: str
    via: str
    may: frozenset[Action] = frozenset(Action)


def local_identity(settings: Settings) -> Identity:
    """The user of this machine, where `trust_local` says that this is enough.

    Raises `NotPermitted` with the remedy. The name is that of the process's user id: a variable
    such as USER can say anything.
    """
    if not settings.trust_local:
        raise NotPermitted(
            "there is no verified identity. On a machine whose users you trust set "
            "TASKYARD_TRUST_LOCAL=1: actions are then audited as local:<user>@<host>"
        )
    return Identity(subject=f"local:{_user()}@{socket.gethostname()}", via="local")


def _user() -> str:
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container may run under an id that has no name
        return str(uid)
