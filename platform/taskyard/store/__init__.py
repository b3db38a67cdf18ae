"""Redis: the client that survives a lost connection, and scripts loaded once."""

from taskyard.store.client import connect, reachable
from taskyard.store.scripts import Argument, Script

__all__ = ["Argument", "Script", "connect", "reachable"]
