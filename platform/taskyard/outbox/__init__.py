"""The outbox: intents, committed with their audit row; the relay carries them out later."""

from taskyard.outbox.intents import Intent, claim, finish, postpone, put, why_waiting

__all__ = ["Intent", "claim", "finish", "postpone", "put", "why_waiting"]
