"""The outbox: intents, committed with their audit row; the relay carries them out later."""

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
    "postpone",
    "put",
    "why_waiting",
]
