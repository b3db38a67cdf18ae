"""Create the table for the nonces of operators' messages; each nonce belongs to one message."""

from __future__ import annotations

from alembic import op

__all__ = ["down_revision", "downgrade", "revision", "upgrade"]

revision = "0008"
down_revision = "0007"

_NONCES = """
CREATE TABLE operator_nonces (
    nonce text PRIMARY KEY CHECK (length(nonce) <= 64),
    message_id text NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX operator_nonces_expiry ON operator_nonces (expires_at);
"""


def upgrade() -> None:
    """Create the table."""
    op.get_bind().exec_driver_sql(_NONCES)


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("operator_nonces")
