"""Create the table of switches, the durable truth of pauses and kill switches."""

from __future__ import annotations

from alembic import op

__all__ = ["down_revision", "downgrade", "revision", "upgrade"]

revision = "0011"
down_revision = "0010"

# `unanswered` are the requests whose audit rows have no outcome yet.
_SWITCHES = """
CREATE TABLE switches (
    field text PRIMARY KEY CHECK (field ~ '^(pause queue:|kill (all$|queue:|type:|domain:))'),
    mode text NOT NULL CHECK (mode IN ('off', 'refuse', 'hold')),
    version bigint NOT NULL CHECK (version > 0),
    since timestamptz NOT NULL,
    until_at timestamptz,
    operator text NOT NULL,
    via text NOT NULL,
    reason text NOT NULL,
    request_id text NOT NULL,
    unanswered uuid[] NOT NULL DEFAULT '{}'
);
"""


def upgrade() -> None:
    """Create the table."""
    op.get_bind().exec_driver_sql(_SWITCHES)


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("switches")
