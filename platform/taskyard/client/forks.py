"""Clients in the children of a fork: what they hold is the parent's, and is made anew."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["renew_in_children"]


class Renewable(Protocol):
    """Something with threads, locks or connections of one process."""

    def renew(self) -> None:
        """Let go of what the parent uses, without a word to the servers, and make it anew."""
        ...


# Not a hook for each client: the interpreter never forgets one.
_clients: WeakSet[Renewable] = WeakSet()


def renew_in_children(client: Renewable) -> None:
    """Call `client.renew()` in every process that is forked from here on, before anything else."""
    _clients.add(client)


def _renew_all() -> None:
    for client in list(_clients):
        client.renew()


os.register_at_fork(after_in_child=_renew_all)
