"""The outbox: intents committed with their audit row, carried out by the relay afterwards."""

from taskyard.outbox.intents import Intent, claim, finish, postpone, put, why_waiting

__all__ = ["Intent", "claim", "finish", "postpone", "put", "why_waiting"]
