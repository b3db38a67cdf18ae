"""Redis: the client, which survives a lost connection, and scripts that are loaded once."""

from taskyard.store.lua_scripts import Argument, Script, call_replicated, read_lua
from taskyard.store.redis_client import (
    BROKER,
    RECORDS,
    SIGNED_OFF,
    TRIES,
    beat,
    connect,
    disown,
    explained,
    make_pool,
    reachable,
    read_beats,
    sentinel_options,
)
from taskyard.store.wrong_key_type import WrongKeyType, is_misplaced, is_of_replica, named

__all__ = [
    "BROKER",
    "RECORDS",
    "SIGNED_OFF",
    "TRIES",
    "Argument",
    "Script",
    "WrongKeyType",
    "beat",
    "call_replicated",
    "connect",
    "disown",
    "explained",
    "is_misplaced",
    "is_of_replica",
    "make_pool",
    "named",
    "reachable",
    "read_beats",
    "read_lua",
    "sentinel_options",
]
