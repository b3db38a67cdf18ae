"""Alembic's entry point: it runs inside the transaction that `taskyard.database.migrate` opened."""

from __future__ import annotations

from alembic import context

from taskyard.database.migrate import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
