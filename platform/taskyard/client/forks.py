"""Clients in the children of a fork: what they hold is the parent's, and is made anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["renew_in_children"]

T = TypeVar("T")

# Not a hook of the interpreter for each client: it never forgets one.
_renewals: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()


def renew_in_children(client: T, renew: Callable[[T], None]) -> None:
    """Call `renew(client)` in every process that is forked from here on, first of all.

    A client that nothing else holds is forgotten.
    """
    _renewals[client] = renew


def _renew_all() -> None:
    for client, renew in list(_renewals.items()):
        renew(client)


os.register_at_fork(after_in_child=_renew_all)
