"""Operator verbs: permit, validate, act, audit.

The CLI and every other interface only calls these.
"""

from taskyard.control import keys, letters, tokens, users
from taskyard.control.authenticate_operator import granted_identity, identify, reader_of
from taskyard.control.await_relay import wait_outcome
from taskyard.control.check_edited_payload import KnownTypes
from taskyard.control.control import Control
from taskyard.control.live_verb import VerbOutcome, VerbRequested
from taskyard.control.purge_outcome import PurgeCounts, PurgeOutcome
from taskyard.control.read_payload import read_payload
from taskyard.control.replay import ReplayRequested, replay
from taskyard.control.replayed_message import Edit

__all__ = [
    "Control",
    "Edit",
    "KnownTypes",
    "PurgeCounts",
    "PurgeOutcome",
    "ReplayRequested",
    "VerbOutcome",
    "VerbRequested",
    "granted_identity",
    "identify",
    "keys",
    "letters",
    "read_payload",
    "reader_of",
    "replay",
    "tokens",
    "users",
    "wait_outcome",
]
