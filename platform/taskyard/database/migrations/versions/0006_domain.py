"""Add the domain of a job's type to dead letters and ledger."""

from __future__ import annotations

from alembic import op

__all__ = ["down_revision", "downgrade", "revision", "upgrade"]

revision = "0006"
down_revision = "0005"

_TABLES = ("dead_letter_queue", "job_ledger")


def upgrade() -> None:
    """Add the column to both tables and all their weeks; existing rows have no domain.

    A column without a default does not rewrite the table.
    """
    for table in _TABLES:
        op.get_bind().exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN domain text")


def downgrade() -> None:
    """Drop the column, with all stored domains."""
    for table in _TABLES:
        op.get_bind().exec_driver_sql(f"ALTER TABLE {table} DROP COLUMN domain")
