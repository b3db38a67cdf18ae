"""The outbox: intents, committed with their audit row; the relay carries them out later."""

from taskyard.outbox.bulk_intents import finish_many, lock_open, put_many, release_many
from taskyard.outbox.intents import (
    Intent,
    add_facts,
    await_attempt,
    claim,
    finish,
    postpone,
    put,
    why_waiting,
)

__all__ = [
    "Intent",
    "add_facts",
    "await_attempt",
    "claim",
    "finish",
    "finish_many",
    "lock_open",
    "postpone",
    "put",
    "put_many",
    "release_many",
    "why_waiting",
]
