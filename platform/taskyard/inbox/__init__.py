"""The inbox: a table in the handler's database, with which a handler's effect happens only once."""

from taskyard.inbox.once import create_table, expire, once

__all__ = ["create_table", "expire", "once"]
