"""Give intents a lane, and the relay an index from which it claims what is due in one lane.

An intent of an older version is in the lane of single verbs.
"""

from __future__ import annotations

from alembic import op

__all__ = ["down_revision", "downgrade", "revision", "upgrade"]

revision = "0012"
down_revision = "0011"

# Postponed intents stand behind those that are due, so a claim never reads them.
_LANES = """
ALTER TABLE outbox ADD COLUMN bulk boolean NOT NULL DEFAULT false;
CREATE INDEX outbox_due ON outbox (bulk, (coalesce(not_before, created_at)), position)
    WHERE done_at IS NULL;
"""


def upgrade() -> None:
    """Add the column and the index."""
    op.get_bind().exec_driver_sql(_LANES)


def downgrade() -> None:
    """Drop the column, and with it the index."""
    op.drop_column("outbox", "bulk")
