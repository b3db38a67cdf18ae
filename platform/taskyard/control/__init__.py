"""Operator verbs, once: permit, validate, act, audit. Every surface only calls these."""

from taskyard.control import letters
from taskyard.control.edits import Edit
from taskyard.control.identity import local_identity
from taskyard.control.outcome import wait_outcome
from taskyard.control.payloads import KnownTypes
from taskyard.control.replay import ReplayRequested, replay

__all__ = [
    "Edit",
    "KnownTypes",
    "ReplayRequested",
    "letters",
    "local_identity",
    "replay",
    "wait_outcome",
]
