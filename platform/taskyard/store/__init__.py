"""Redis: the client that survives a lost connection, and scripts loaded once."""

from taskyard.store.address import SCHEMES, SentinelAddress, sentinel_address
from taskyard.store.client import BROKER, RECORDS, TRIES, connect, disown, explained, reachable
from taskyard.store.misplaced import Misplaced, is_misplaced, named
from taskyard.store.replicated import call_replicated
from taskyard.store.scripts import Argument, Script

__all__ = [
    "BROKER",
    "RECORDS",
    "SCHEMES",
    "TRIES",
    "Argument",
    "Misplaced",
    "Script",
    "SentinelAddress",
    "call_replicated",
    "connect",
    "disown",
    "explained",
    "is_misplaced",
    "named",
    "reachable",
    "sentinel_address",
]
