"""Redis: the client that survives a lost connection, and scripts loaded once."""

from taskyard.store.address import SCHEMES, SentinelAddress, sentinel_address
from taskyard.store.client import BROKER, RECORDS, connect, reachable
from taskyard.store.scripts import Argument, Script

__all__ = [
    "BROKER",
    "RECORDS",
    "SCHEMES",
    "Argument",
    "Script",
    "SentinelAddress",
    "connect",
    "reachable",
    "sentinel_address",
]
