"""The inbox: a table in the handler's own database that makes its transaction apply once."""

from taskyard.inbox.once import create_table, expire, once

__all__ = ["create_table", "expire", "once"]
