"""Create the table that counts denied calls without an identity, by minute, source and cause."""

from __future__ import annotations

from alembic import op

__all__ = ["down_revision", "downgrade", "revision", "upgrade"]

revision = "0007"
down_revision = "0006"

_DENIALS = """
CREATE TABLE unverified_denials (
    minute timestamptz NOT NULL,
    source text NOT NULL,
    why text NOT NULL,
    count bigint NOT NULL CONSTRAINT unverified_denials_count CHECK (count > 0),
    PRIMARY KEY (minute, source, why)
);
"""


def upgrade() -> None:
    """Create the table."""
    op.get_bind().exec_driver_sql(_DENIALS)


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("unverified_denials")
