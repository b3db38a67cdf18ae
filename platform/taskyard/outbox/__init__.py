"""The outbox: intents, committed with their audit row; the relay carries them out later."""

from taskyard.outbox.bulk_intents import (
    finish_own,
    keep_ahead,
    lock_open,
    put_many,
    release_many,
)
from taskyard.outbox.intents import (
    BULK_ABOVE,
    CARRIED_OUT,
    Intent,
    Older,
    bring_forward,
    claim,
    claim_again,
    is_bulk,
    lock_older,
    put,
    why_waiting,
)
from taskyard.outbox.settle_intents import Postponement, finish, finish_many, postpone_many

__all__ = [
    "BULK_ABOVE",
    "CARRIED_OUT",
    "Intent",
    "Older",
    "Postponement",
    "bring_forward",
    "claim",
    "claim_again",
    "finish",
    "finish_many",
    "finish_own",
    "is_bulk",
    "keep_ahead",
    "lock_older",
    "lock_open",
    "postpone_many",
    "put",
    "put_many",
    "release_many",
    "why_waiting",
]
